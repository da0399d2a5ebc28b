"""Networks whose measured latency is the budget: what deviates is chosen again.

All are measured beside one yardstick of about that latency. The given network would not do: it reads so many weights
from memory that its latency changes more than theirs when other virtual machines use the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from search_quality.measuring import Measured, measure_modules
from search_quality.once import CpuClock, Result, once

from dmask_mobile import api
from dmask_mobile.nets.build import build
from dmask_mobile.records.block import BlockSpec, round8
from dmask_mobile.records.child import ChildSpec
from own_network.given import Given

AT_ONCE = 4  # networks that are measured together
LEAST_SLOPE, MOST_SLOPE = 0.3, 2.0  # of the latency over what is asked for, both as logarithms
SHARES = np.linspace(0.2, 1.0, 161)


class Landed(NamedTuple):
    """A network; ``ratio``: its measured latency as a share of the budget; ``tried``: networks that were measured."""

    child: ChildSpec
    ratio: float
    tried: int


def measured(given: Given, children: Sequence[ChildSpec]) -> Measured:
    """The latencies of networks, measured side by side."""
    modules = [(build(child), child.resolution) for child in children]
    return measure_modules(modules, given.table, given.plan.measuring)


class Yardstick(NamedTuple):
    """A network; ``ratio``: its latency as a share of the budget, measured once beside the given network."""

    child: ChildSpec
    ratio: float


def yardstick(given: Given) -> Yardstick:
    """The given network scaled uniformly, with its measured latency."""
    child = _scaled_to_budget(given)

    def job(folder: Path, clock: CpuClock) -> Result:
        original, ms = measured(given, [given.original, child]).ms
        return {"ratio": ms / original / given.plan.budget}

    return Yardstick(child, once(given.work, "yardstick", landing_identity(given), job)["ratio"])


def landing_identity(given: Given) -> dict[str, Any]:
    """What bringing a network to the budget depends on."""
    return {
        "yardstick": _scaled_to_budget(given).digest(),
        "table": given.cost().digest(),
        "budget": given.plan.budget,
        "measuring": given.plan.measuring.model_dump(),
    }


def _scaled_to_budget(given: Given) -> ChildSpec:
    """The given network with its widths scaled to the budget's share of its multiply-adds."""
    return _by_macs(given, given.original.resolution, given.plan.budget)[0]


def land(given: Given, propose: Callable[[float], Sequence[ChildSpec]]) -> Landed:
    """The first proposal whose measured latency is the budget within the tolerance, or the nearest of all.

    Args:
        given: the given network, a share of whose latency is the budget.
        propose: networks for a multiple of the budget, the preferred one first.
    """
    settings, beside, scale = given.plan.measuring, yardstick(given), 1.0
    tried: dict[str, Landed] = {}
    steps: list[tuple[float, float]] = []
    for _ in range(settings.attempts):
        new = [child for child in propose(scale) if child.digest() not in tried][:AT_ONCE]
        if not new:
            break
        its_ms, *ms = measured(given, [beside.child, *new]).ms
        found = [Landed(child, each / its_ms * beside.ratio, 0) for child, each in zip(new, ms, strict=True)]
        tried |= {each.child.digest(): each for each in found}
        if near := [each for each in found if abs(each.ratio - 1) <= settings.tolerance]:
            return near[0]._replace(tried=len(tried))
        steps.append((math.log(scale), math.log(float(np.median([each.ratio for each in found])))))
        scale = math.exp(_next(steps))
    nearest = min(tried.values(), key=lambda each: abs(math.log(each.ratio)))
    return nearest._replace(tried=len(tried))


def _next(steps: Sequence[tuple[float, float]]) -> float:
    """The logarithm of the multiple to propose next, from those of multiples and of the ratios that they led to.

    The latency of narrow networks falls more slowly than their multiply-adds, so the slope is that of the last two.
    """
    (asked, reached), slope = steps[-1], 1.0
    if len(steps) > 1 and asked != steps[-2][0]:
        slope = float(np.clip((reached - steps[-2][1]) / (asked - steps[-2][0]), LEAST_SLOPE, MOST_SLOPE))
    return asked - reached / slope


def scaled(original: ChildSpec, share: float, resolution: int) -> ChildSpec:
    """A network with all its widths multiplied, rounded to multiples of 8.

    >>> scaled(child, 1.0, child.resolution) == child
    True
    """

    def width(own: int) -> int:
        return min(own, round8(share * own))

    blocks: list[BlockSpec] = []
    for number, block in enumerate(original.blocks):
        in_width = blocks[-1].out_width if number else block.in_width
        out_width = block.out_width if block.kind == "head" else width(block.out_width)
        hidden = in_width if not block.expand else width(block.hidden_width) if block.hidden_width else 0
        se_width = width(block.se_width) if block.se_width else 0
        changed = {"in_width": in_width, "out_width": out_width, "hidden_width": hidden, "se_width": se_width}
        blocks.append(BlockSpec.model_validate({**block.model_dump(), **changed}))
    name = f"{original.name}-{share:.3f}-{resolution}"
    return original.model_copy(update={"blocks": tuple(blocks), "resolution": resolution, "name": name})


def _by_macs(given: Given, resolution: int, share: float) -> list[ChildSpec]:
    """The given network with scaled widths, those first whose multiply-adds are nearest to this share of its own."""
    model = api.cost_model("macs")  # the table may not know such widths; the measured latency decides
    children = {child.digest(): child for child in (scaled(given.original, each, resolution) for each in SHARES)}
    wanted = share * model.estimate(given.original).value
    return sorted(children.values(), key=lambda child: abs(math.log(model.estimate(child).value / wanted)))


def uniform(given: Given, resolution: int) -> Landed:
    """The given network at a resolution with all widths multiplied by the share that leads to the budget."""
    return land(given, lambda scale: _by_macs(given, resolution, scale * given.plan.budget))
