"""Latencies of whole networks, measured side by side and again until two passes agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from dmask_mobile.records.artifact import Preprocessing
from export.deployable import Deployable
from latency_tables.profiling.profile import remeasure
from latency_tables.profiling.setup import setup_of
from latency_tables.table.table import LatencyTable
from search_quality.bench import Bench, Network
from search_quality.protocol import Measuring

CHANNELS = 3
QUANTILE = 90  # percent of the networks whose passes must agree


class Measured(NamedTuple):
    """Milliseconds of each network; by how much the two passes that agree best differ, and how many there were."""

    ms: list[float]
    disagreement: float
    passes: int


def disagreement(first_ms: np.ndarray, second_ms: np.ndarray) -> float:
    """By how much two passes differ on 90% of the networks, once the machine's drift between them is taken out."""
    ratios = second_ms / first_ms
    return float(np.percentile(np.abs(ratios / np.median(ratios) - 1), QUANTILE))


def measure(bench: Bench, networks: Sequence[Network]) -> Measured:
    """The latencies of networks, as `measure_modules` gives them."""
    modules = [(bench.module(network, 0), bench.resolution(network)) for network in networks]
    return measure_modules(modules, Path(bench.table), bench.protocol.measuring)


def measure_modules(modules: Sequence[tuple[nn.Module, int]], table: Path, settings: Measuring) -> Measured:
    """The latencies of modules, on the device and the runtime of the table; nothing else of ours may run meanwhile.

    They are the mean of the two passes that agree best. The machine was too noisy where ``disagreement`` is larger than
    `Measuring.agreement`.

    Args:
        modules: each with the resolution of its images, in pixels.
        table: the latency table.
        settings: how often and how long.
    """
    setup = setup_of(LatencyTable.read(table))
    halves = Preprocessing(mean=(0.5,) * CHANNELS, std=(0.25,) * CHANNELS)
    models = {}
    for number, (module, resolution) in enumerate(modules):
        shape = (1, CHANNELS, resolution, resolution)
        models[str(number)] = setup.runtime.convert(Deployable(module, halves), shape, "fp32")
    passes: list[np.ndarray] = []
    best, apart = passes, np.inf
    for _ in range(settings.passes):
        taken = remeasure(models, setup, settings.rounds, settings.seconds)
        new = np.array([np.median([np.median(samples.wall_ms) for samples in taken[key]]) for key in models])
        for earlier in passes:
            if (found := disagreement(earlier, new)) < apart:
                best, apart = [earlier, new], found
        passes.append(new)
        if apart <= settings.agreement:
            break
    return Measured(np.mean(best, axis=0).tolist(), float(apart), len(passes))
