"""Reads tables of ProxylessNAS and Once-for-All: one mapping in YAML or JSON with an entry for each block.

A key looks like ``expanded_conv-input:112x112x16-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0``, sizes in
height x width x channels, latencies in milliseconds. In a table of ProxylessNAS, ``expand`` is the expansion ratio, and
all networks use ReLU6. In a table of Once-for-All, ``expand`` is the hidden width, and keys contain ``se`` and ``hs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dmask_mobile.errors import shown
from dmask_mobile.files import parse_json, parse_yaml
from dmask_mobile.records.block import Activation, BlockSpec
from latency_tables.table.foreign_entries import BadEntryError, Entries, Entry, foreign_text
from latency_tables.table.rows import BlockAt

SE_REDUCTION = 4
MAX_EXPANSION = 10  # published ratios go up to 6; a hidden width is larger
PROXYLESSNAS, ONCE_FOR_ALL = "proxylessnas", "once-for-all"
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")
_EXPANDED = re.compile(r"expanded_conv-input:\d+x\d+x(\d{1,9})-.*expand:(\d{1,9})\b")


def proxylessnas_entries(path: Path, activation: Activation | None) -> Entries:
    """The entries of a table of ProxylessNAS.

    Raises:
        ValueError: if the file is not such a table.
    """
    return _entries(path, PROXYLESSNAS, activation)


def once_for_all_entries(path: Path, activation: Activation | None) -> Entries:
    """The entries of a table of Once-for-All.

    Raises:
        ValueError: if the file is not such a table.
    """
    return _entries(path, ONCE_FOR_ALL, activation)


def _entries(path: Path, file_format: str, activation: Activation | None) -> Entries:
    text = foreign_text(path)
    if '"op_type"' in text[:1000]:
        raise ValueError("its entries are operators, as in a table of mobile-vision")
    content = parse_json(text) if text.lstrip().startswith("{") else parse_yaml(text)
    if not isinstance(content, dict):
        raise ValueError("it must be one mapping with an entry for each block")
    _check_meaning_of_expand(map(str, content), file_format)
    for key, value in content.items():
        yield str(key), partial(_entry, str(key), value, file_format, activation)


def _check_meaning_of_expand(keys: Iterable[str], file_format: str) -> None:
    """Checks that most entries have the format's meaning of ``expand``, where ratio and width can be distinguished."""
    found = [(int(match[1]), int(match[2])) for key in keys if (match := _EXPANDED.match(key))]
    widths = [(c_in, expand) for c_in, expand in found if expand > MAX_EXPANSION]
    ratios = [(c_in, expand) for c_in, expand in found if expand <= MAX_EXPANSION and expand < c_in]
    if file_format == PROXYLESSNAS and len(widths) > len(ratios):
        c_in, expand = widths[0]
        raise ValueError(
            f"'expand:{expand}' of {c_in} channels is a hidden width, not a ratio: give it as {ONCE_FOR_ALL}"
        )
    if file_format == ONCE_FOR_ALL and len(ratios) > len(widths):
        c_in, expand = ratios[0]
        raise ValueError(
            f"'expand:{expand}' of {c_in} channels is an expansion ratio, not a hidden width: give it as {PROXYLESSNAS}"
        )


def _entry(key: str, value: Any, file_format: str, activation: Activation | None) -> Entry:
    if not isinstance(value, dict):
        raise BadEntryError(f"it must be a mapping with 'mean', got {shown(repr(value))}")
    count = value.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise BadEntryError(f"it was measured {shown(count)} times")
    return Entry(_block(key, file_format, activation), value["mean"])


def _block(key: str, file_format: str, activation: Activation | None) -> BlockAt:
    name, *parts = key.split("-")
    fields = dict(part.split(":", 1) for part in parts)
    match = _SHAPE.fullmatch(fields["input"])
    if match is None:
        raise BadEntryError(f"input '{shown(fields['input'])}' is not HxWxC")
    height, width, c_in = map(int, match.groups())
    out = _SHAPE.fullmatch(fields["output"])
    out_size, c_out = (int(out[1]), int(out[3])) if out else (1, int(fields["output"]))
    if height != width:
        raise BadEntryError(f"input {height}x{width} is not square")
    if out and out[1] != out[2]:
        raise BadEntryError(f"output {out[1]}x{out[2]} is not square")
    if name == "Logits":
        return BlockSpec(kind="head", in_width=c_in, out_width=c_out), height
    stride = int(fields.get("stride", -(-height // out_size)))
    if name == "Conv" or name.startswith("Conv_"):
        block = _convolution(name, fields, (c_in, c_out), stride, activation or _usual(file_format))
    elif name == "expanded_conv":
        block = _inverted_residual(fields, (c_in, c_out), stride, file_format, activation)
    else:
        raise BadEntryError(f"no block corresponds to a '{shown(name)}'")
    if block.out_size(height) != out_size:
        raise BadEntryError(f"stride {stride} on {height} pixels gives {block.out_size(height)}, not {out_size}")
    return block, height


def _usual(file_format: str) -> Activation | None:
    """The activation of all networks of the format."""
    return "relu" if file_format == PROXYLESSNAS else None


def _convolution(
    name: str, fields: dict[str, str], widths: tuple[int, int], stride: int, activation: Activation | None
) -> BlockSpec:
    """``Conv`` is the 3x3 stem; ``Conv_1`` and ``Conv_2`` are 1x1 convolutions after the blocks."""
    if activation is None:
        raise BadEntryError("its activation is not in the file: give it with --activation")
    kernel = fields.get("kernel", "3" if name == "Conv" else "1")
    if "kernel" not in fields and name != "Conv" and stride != 1:
        raise BadEntryError("a 1x1 convolution has stride 1, and its key names no other kernel")
    return BlockSpec(
        kind="conv", in_width=widths[0], out_width=widths[1], kernel=int(kernel), stride=stride, activation=activation
    )


def _inverted_residual(
    fields: dict[str, str], widths: tuple[int, int], stride: int, file_format: str, activation: Activation | None
) -> BlockSpec:
    c_in, c_out = widths
    expand = int(fields["expand"])
    if file_format == ONCE_FOR_ALL:
        if expand < c_in:
            raise BadEntryError(f"hidden width {expand} of {c_in} channels: an expansion ratio, as in {PROXYLESSNAS}")
        hidden, default = expand, None
    else:
        if expand > MAX_EXPANSION:
            raise BadEntryError(f"expansion ratio {expand}: a hidden width, as in {ONCE_FOR_ALL}")
        hidden, default = c_in * expand, "0"
    hswish = _flag(fields, "hs", default)
    return BlockSpec(
        kind="inverted_residual",
        in_width=c_in,
        hidden_width=hidden,
        out_width=c_out,
        expand=hidden != c_in,
        kernel=int(fields["kernel"]),
        stride=stride,
        se_width=_make_divisible(hidden // SE_REDUCTION) if _flag(fields, "se", default) else 0,
        activation="hswish" if hswish else "relu" if "hs" in fields else activation or "relu",
        residual=_flag(fields, "idskip", "0"),
    )


def _flag(fields: dict[str, str], name: str, default: str | None) -> bool:
    value = fields.get(name, default)
    if value is None:
        raise BadEntryError(f"its key has no '{name}', which a table of {ONCE_FOR_ALL} has")
    if value not in ("0", "1"):
        raise BadEntryError(f"'{name}' must be 0 or 1, got '{shown(value)}'")
    return value == "1"


def _make_divisible(width: int) -> int:
    """The width rounded by the rule of Once-for-All: to the nearest multiple of 8, but at least 90% of the width."""
    rounded = max(8, (width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8
