"""Tables by others: ProxylessNAS and Once-for-All YAML, mobile-vision JSON lines.

Such files exist with wrong content, so every entry is checked: negative or missing times, two entries for one block,
shapes that contradict each other. What is found is reported; nothing is guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.block import BlockSpec
from latency_tables.table.rows import BlockAt, BlockRow, TableHead
from latency_tables.table.writer import write_new_table

SE_REDUCTION = 4
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")


class Imported(NamedTuple):
    """What an import took over, and what it found wrong or could not use, with the reason."""

    rows: tuple[BlockRow, ...]
    findings: tuple[str, ...]


class _BadEntryError(Exception):
    """An entry that is wrong, or that no block of ours corresponds to."""


class _Entry(NamedTuple):
    name: str
    located: BlockAt
    samples_ms: tuple[float, ...]


def read_foreign(path: Path, file_format: str) -> Imported:
    """The blocks of another project's table.

    Args:
        path: the file.
        file_format: a key of `FORMATS`.

    Raises:
        DmaskError: for an unknown format, a file that does not parse, and one without a single good entry.
    """
    if file_format not in FORMATS:
        raise DmaskError(f"no table format '{file_format}'", f"choose one of {', '.join(FORMATS)}")
    try:
        entries = list(FORMATS[file_format](path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DmaskError(f"cannot read '{path}' as {file_format}: {reason}", "give a file of that format") from error
    rows: dict[BlockAt, BlockRow] = {}
    findings = []
    for name, make in entries:
        try:
            entry = _checked(name, make)
            if entry.located in rows:
                raise _BadEntryError("a second entry for this block")
            block, in_size = entry.located
            rows[entry.located] = BlockRow(
                block=block, in_size=in_size, round=0, at=now(), wall_ms=entry.samples_ms, cpu_ms=()
            )
        except _BadEntryError as error:
            findings.append(f"{name}: {error}")
    if not rows:
        raise DmaskError(
            f"'{path}' holds no usable entry; the first: {findings[0] if findings else 'none at all'}",
            "check that it is a table of that format",
        )
    return Imported(tuple(rows.values()), tuple(findings))


def write_imported(imported: Imported, head: TableHead, path: Path) -> None:
    """Writes the imported blocks as a table of ours.

    Raises:
        DmaskError: when the file exists.
    """
    write_new_table(path, head, imported.rows)


Entries = Iterator[tuple[str, Callable[[], tuple[BlockAt, list[Any]]]]]


def _checked(name: str, make: Callable[[], tuple[BlockAt, list[Any]]]) -> _Entry:
    try:
        located, times = make()
    except ValidationError as error:
        raise _BadEntryError(describe_validation_error(error)) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _BadEntryError(f"incomplete: {type(error).__name__} {error}") from error
    for time_ms in times:
        if isinstance(time_ms, bool) or not isinstance(time_ms, int | float) or not math.isfinite(time_ms):
            raise _BadEntryError(f"a latency must be a number, got {time_ms!r}")
        if time_ms <= 0:
            raise _BadEntryError(f"a latency must be positive, got {time_ms:g} ms")
    if located[0].out_width > 100_000 or located[1] > 10_000:
        raise _BadEntryError(f"impossible shape {located[0].describe()} at {located[1]}")
    return _Entry(name, located, tuple(float(t) for t in times))


def _proxylessnas(path: Path) -> Entries:
    return _yaml_entries(path, hidden_is_given=False)


def _once_for_all(path: Path) -> Entries:
    return _yaml_entries(path, hidden_is_given=True)


def _yaml_entries(path: Path, hidden_is_given: bool) -> Entries:
    with path.open(encoding="utf-8") as file:
        loader = yaml.SafeLoader(file)
        try:
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise ValueError("expected one mapping with an entry a block")
            # Pairs, not a dict: a dict would keep the last of two entries for one block and say nothing.
            pairs = [
                (loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value
            ]
        finally:
            loader.dispose()
    for key, value in pairs:
        yield str(key), partial(_yaml_entry, str(key), value, hidden_is_given)


def _yaml_entry(key: str, value: dict[str, Any], hidden_is_given: bool) -> tuple[BlockAt, list[Any]]:
    return _yaml_block(key, hidden_is_given), [value["mean"]]


def _yaml_block(key: str, hidden_is_given: bool) -> BlockAt:
    """The block of a key such as ``expanded_conv-input:112x112x16-output:112x112x16-expand:1-kernel:3-stride:1``."""
    name, *parts = key.split("-")
    fields = dict(part.split(":", 1) for part in parts)
    match = _SHAPE.fullmatch(fields["input"])
    if match is None:
        raise _BadEntryError(f"input '{fields['input']}' is not HxWxC")
    height, width, c_in = map(int, match.groups())
    out = _SHAPE.fullmatch(fields["output"])
    out_size, c_out = (int(out[1]), int(out[3])) if out else (1, int(fields["output"]))
    if height != width:
        raise _BadEntryError(f"input {height}x{width} is not square")
    if name.startswith("Logits"):
        return BlockSpec(kind="head", in_width=c_in, out_width=c_out), height
    stride = int(fields.get("stride", -(-height // out_size)))
    if name.startswith("Conv"):
        kernel = int(fields.get("kernel", 1 if height == out_size else 3))
        block = BlockSpec(kind="conv", in_width=c_in, out_width=c_out, kernel=kernel, stride=stride)
    elif name == "expanded_conv":
        expand = int(fields["expand"])
        hidden = expand if hidden_is_given else c_in * expand
        block = BlockSpec(
            kind="inverted_residual",
            in_width=c_in,
            hidden_width=hidden,
            out_width=c_out,
            expand=hidden != c_in,
            kernel=int(fields["kernel"]),
            stride=stride,
            se_width=_make_divisible(hidden // SE_REDUCTION) if fields.get("se") == "1" else 0,
            activation="hswish" if fields.get("hs") == "1" else "relu",
            residual=fields.get("idskip") == "1",
        )
    else:
        raise _BadEntryError(f"no block of ours is a '{name}'")
    if block.out_size(height) != out_size:
        raise _BadEntryError(f"stride {stride} on {height} pixels gives {block.out_size(height)}, not {out_size}")
    return block, height


def _make_divisible(width: int) -> int:
    """Once-for-All's rule: the nearest multiple of 8, but never less than 90% of the width."""
    rounded = max(8, (width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def _mobile_vision(path: Path) -> Entries:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            content = json.loads(line)
            yield f"line {number}", partial(_operator, content)


def _operator(content: dict[str, Any]) -> tuple[BlockAt, list[Any]]:
    """A dense convolution; other operators are no block of ours."""
    kind, arguments, shapes = content["op_type"], content["op_args"], content["input_shapes"]
    if kind != "conv2d" or arguments.get("groups", 1) != 1:
        raise _BadEntryError(f"operator '{kind}' with groups {arguments.get('groups', 1)} is no block of ours")
    batch, channels, height, width = shapes[0]
    if batch != 1 or height != width:
        raise _BadEntryError(f"input shape {shapes[0]}: batch 1 and a square map are needed")
    if channels != arguments["in_channels"]:
        raise _BadEntryError(f"the input has {channels} channels, the operator {arguments['in_channels']}")
    block = BlockSpec(
        kind="conv",
        in_width=channels,
        out_width=arguments["out_channels"],
        kernel=arguments["kernel_size"],
        stride=arguments.get("stride", 1),
    )
    return (block, height), [content["runtime_us_p50"] / 1000]


FORMATS: dict[str, Callable[[Path], Entries]] = {
    "proxylessnas": _proxylessnas,
    "once-for-all": _once_for_all,
    "mobile-vision": _mobile_vision,
}
