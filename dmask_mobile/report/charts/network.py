"""The child as a row of blocks beside the widest child of its space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dmask_mobile.quantities import quantity
from dmask_mobile.records.block import RESIDUAL_KINDS, BlockSpec
from dmask_mobile.report.charts.marks import Chart, Legend, Mark, short
from dmask_mobile.report.records import BlockLatency, BlockView

ROOM = 1060  # pixels of a page on a desktop screen
NARROWEST, WIDEST = 58, 118  # of a block
MIDDLE, HALF = 96, 74  # in pixels: the vertical position of the middle line, and the half height of the widest block
HEIGHT = 274
KERNEL_COLOURS = {1: "k1", 3: "k3", 5: "k5"}


def network_chart(blocks: Sequence[BlockView], latencies: Sequence[BlockLatency]) -> Chart:
    """Each block as an outline of its widths (in, hidden, out), in front of the outline of the space's widest block.

    Heights are square roots of channels, so that narrow blocks are visible next to wide ones.
    """
    pitch = min(WIDEST, max(NARROWEST, ROOM / len(blocks)))
    highest = _highest(blocks)
    marks: list[Mark] = []
    for place, view in enumerate(blocks):
        left = place * pitch
        marks += _outline(view.widest, left, pitch, highest, "ghost")
        tip = block_tip(view, latencies[place] if latencies else None)
        if view.block.kind == "skip":
            line = {"x1": short(left + 2), "x2": short(left + pitch - 2), "y1": MIDDLE, "y2": MIDDLE}
            marks.append(Mark("line", "skipped", line, tip=tip))
        else:
            colour = "head" if view.block.kind == "head" else KERNEL_COLOURS.get(view.block.kernel, "k7")
            marks += [mark._replace(tip=tip) for mark in _outline(view.block, left, pitch, highest, f"block {colour}")]
        marks += _captions(view, left + pitch / 2)
    has_widest = any(view.widest is not None for view in blocks)
    legend = (*([Legend("ghost", "widest block of the space")] if has_widest else []), *_kernels(blocks))
    description = f"{len(blocks)} blocks from the image to the class scores: " + "; ".join(
        f"{view.name}, {view.block.describe()}" for view in blocks[:60]
    )
    return Chart("The network, block by block", description, short(pitch * len(blocks)), HEIGHT, tuple(marks), legend)


def _highest(blocks: Sequence[BlockView]) -> int:
    """The largest width inside an inverted residual; the last convolution is much wider but drawn with this height."""
    found = [b for view in blocks for b in (view.block, view.widest) if b is not None]
    inside = [max(_widths(block)) for block in found if block.kind in RESIDUAL_KINDS]
    return max(inside or [max(_widths(block)) for block in found])


def _widths(block: BlockSpec) -> tuple[int, ...]:
    """The widths along a block, without the classes of a head, which are not channels and may be far too many."""
    if block.kind == "head":
        return (block.in_width, min(block.in_width, block.out_width))
    return (block.in_width, *([block.hidden_width] if block.hidden_width else []), block.out_width)


def _outline(block: BlockSpec | None, left: float, pitch: float, highest: int, css: str) -> Iterator[Mark]:
    if block is None or block.kind == "skip":
        return
    widths, right = _widths(block), left + pitch - 4
    halves = [max(4.0, HALF * min(1.0, math.sqrt(width / highest))) for width in widths]
    if len(halves) == 3:
        ins, hidden, outs = halves
        shape = [(left + 4, ins), (left + 0.3 * pitch, hidden), (left + 0.7 * pitch, hidden), (right, outs)]
    else:
        shape = [(left + 4, halves[0]), (right, halves[1])]
    upper = "L".join(f"{short(x)} {short(MIDDLE - half)}" for x, half in shape)
    lower = "L".join(f"{short(x)} {short(MIDDLE + half)}" for x, half in reversed(shape))
    yield Mark("path", css, {"d": f"M{upper}L{lower}Z"})


def _captions(view: BlockView, middle: float) -> Iterator[Mark]:
    """The text below a block: its name, kernel and squeeze-excite, widths, and the size of its feature map."""
    block, top = view.block, MIDDLE + HALF + 24
    stage, _, rest = view.name.rpartition(".")
    kernel = f"{block.kernel}×{block.kernel}" + (" SE" if block.se_width else "")
    width = f"{block.hidden_width}→{block.out_width}" if block.hidden_width else f"{block.out_width}"
    lines = (
        ("strong", stage or view.name, 0),
        ("", rest if stage else "", 15),
        ("strong", kernel if block.kind not in ("skip", "head") else block.kind, 35),
        ("", width, 51),
        ("", f"{view.out_size} px", 67),
    )
    for css, text, below in lines:
        place = {"x": short(middle), "y": top + below}
        yield Mark("text", f"caption {css} middle".replace("  ", " "), place, text)


def _kernels(blocks: Sequence[BlockView]) -> Iterator[Legend]:
    found = sorted({view.block.kernel for view in blocks if view.block.kind not in ("skip", "head")})
    for kernel in found:
        yield Legend(KERNEL_COLOURS.get(kernel, "k7"), f"kernel {kernel}×{kernel}")


def block_tip(view: BlockView, latency: BlockLatency | None) -> str:
    """Everything that is known about a block, in one line."""
    block = view.block
    parts = [f"{view.name}: {block.kind.replace('_', ' ')}, {block.in_width} → {block.out_width} channels"]
    if block.hidden_width:
        parts.append(f"hidden {block.hidden_width} (expansion {block.hidden_width / block.in_width:.3g})")
    if block.kind != "skip":
        parts.append(f"kernel {block.kernel}×{block.kernel}, stride {block.stride}")
        parts.append(f"squeeze-excite {block.se_width}" if block.se_width else "no squeeze-excite")
    parts.append(f"{quantity(view.macs, 'macs')} multiply-adds, {quantity(view.params, 'params')} parameters")
    if latency is not None:
        parts.append(f"predicted {quantity(latency.predicted_ms, 'ms')}")
        if latency.alone_ms is not None:
            parts.append(f"measured alone {quantity(latency.alone_ms, 'ms')}")
    if view.widest is not None:
        parts.append(f"widest block here: {view.widest.describe()}")
    return "; ".join(parts)
