"""Networks whose measured latencies lie close to each other: what deviates is chosen again."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from search_quality.bench import Bench, Network
from search_quality.children import within
from search_quality.contenders import Contender, Proposal, Tried
from search_quality.measuring import measure
from search_quality.once import CpuClock, Result, cpu_seconds, folder_of, once

DRAWS_PER_CHILD = 5  # random children that are measured for each one that is kept


def random_children(bench: Bench) -> Result:
    """Random children within the budget whose measured latencies lie near their median, and the nearest others."""
    count = bench.protocol.random_children
    measuring = bench.protocol.measuring.model_dump()
    identity = {**bench.budget, **measuring, "count": count, "seed": bench.protocol.first_seed}

    def job(folder: Path, clock: CpuClock) -> Result:
        generator = random.Random(bench.protocol.first_seed)
        drawn = list(within(bench.cost(), bench.budget_ms, DRAWS_PER_CHILD * count, generator))
        measured = measure(bench, [Network(choice=choice) for choice in drawn])
        deviations = np.array(measured.ms) / np.median(measured.ms) - 1
        far = np.abs(deviations) > bench.protocol.measuring.tolerance
        order = np.lexsort((np.where(far, np.abs(deviations), 0), far))[:count]  # those that are near in drawn order
        return {
            "choices": [list(drawn[number].indices) for number in order],
            "ms": [measured.ms[number] for number in order],
            "typical_ms": float(np.median(measured.ms)),
            "drawn": len(drawn),
            "near": int((~far).sum()),
            "disagreement": measured.disagreement,
        }

    return once(bench.work, "random", identity, job)


def _propose(contender: Contender, tried: list[Tried]) -> tuple[list[Proposal], float]:
    """The contender's proposals, and the CPU seconds that they took."""
    start = time.process_time()
    return contender.propose(tried), time.process_time() - start


def land(
    contenders: Sequence[Contender], references: Sequence[Network], bench: Bench, pool: Executor
) -> dict[str, Result]:
    """The network of each contender: the first that is measured near to the median of ``references``, or the nearest.

    All contenders are measured together, in one session for each attempt, beside the references.
    """
    measuring = bench.protocol.measuring
    shared = {**bench.budget, **measuring.model_dump(), "references": [bench.identity(each) for each in references]}
    identities = {each.key: {**shared, **each.identity} for each in contenders}
    waiting = [each for each in contenders if not _is_done(bench, identities[each.key])]
    tried: dict[str, list[Tried]] = {each.key: [] for each in waiting}
    seconds = dict.fromkeys(tried, 0.0)
    for attempt in range(measuring.attempts if waiting else 0):
        proposed = list(pool.map(_propose, waiting, [tried[each.key] for each in waiting]))
        start = cpu_seconds()
        new, apart = _measured(bench, references, [proposals for proposals, _ in proposed])
        measuring_seconds = (cpu_seconds() - start) / len(waiting)
        left = []
        for contender, found, (_, taken) in zip(waiting, new, proposed, strict=True):
            history = tried[contender.key]
            history += found
            seconds[contender.key] += taken + measuring_seconds
            near = [each for each in found if abs(each.ratio - 1) <= measuring.tolerance]
            if near or not found or attempt + 1 == measuring.attempts:
                chosen = near[0] if near else min(history, key=lambda each: abs(each.ratio - 1))
                content = {"network": chosen.network.model_dump(), "ratio": chosen.ratio, "tried": len(history)}
                content |= {"choosing_cpu_seconds": seconds[contender.key], "disagreement": apart}
                _keep(bench, identities[contender.key], content)
            else:
                left.append(contender)
        waiting = left
        if not waiting:
            break
    return {each.key: once(bench.work, "land", identities[each.key], _not_done) for each in contenders}


def _measured(
    bench: Bench, references: Sequence[Network], proposed: list[list[Proposal]]
) -> tuple[list[list[Tried]], float]:
    """The proposals with what was measured of them, and by how much the passes of that disagree."""
    flat = [proposal.network for proposals in proposed for proposal in proposals]
    if not flat:
        return [[] for _ in proposed], 0.0
    ms, apart, _ = measure(bench, [*references, *flat])
    wanted, taken = float(np.median(ms[: len(references)])), iter(ms[len(references) :])
    found = [[Tried(each.network, each.scale, next(taken) / wanted) for each in proposals] for proposals in proposed]
    return found, apart


def _keep(bench: Bench, identity: dict[str, Any], content: Result) -> None:
    once(bench.work, "land", identity, lambda folder, clock: content)


def _is_done(bench: Bench, identity: dict[str, Any]) -> bool:
    return (folder_of(bench.work, "land", identity) / "result.json").exists()


def _not_done(folder: Path, clock: CpuClock) -> Result:
    raise RuntimeError(f"'{folder}' was removed meanwhile")
