"""How well do some blocks of a table predict its others, beside extremely randomized trees?

    python benchmarks/block_prediction.py TABLE [TABLE ...] [--blocks 40 80 150 300 600 1200] [--draws 3] [--json]

Of each table's inverted residuals, random ones are taken as measured and all others are predicted from them: by
`latency_tables.prediction.predictor` as it is, and with trees in the place of its Gaussian process (scikit-learn, 200
trees, at least two blocks in a leaf; what tables used before). ``extrapolated``: 400 blocks among the 70% with the
fewest multiply-adds predict the 15% with the most. Mean error of the logarithm, the share of blocks within the stated
80% interval, and the CPU seconds for fitting and predicting. It measures nothing on a device. Writes
``benchmarks/results/block_prediction.json``.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import keep
from sklearn.ensemble import ExtraTreesRegressor

from latency_tables.prediction.gaussian_process import GaussianProcess
from latency_tables.prediction.predictor import BlockPredictor, Regression, work
from latency_tables.profiling.judging import QUANTILE_80
from latency_tables.table.rows import BlockAt
from latency_tables.table.table import LatencyTable

EXTRAPOLATED_FROM = 400


class Trees:
    """Extremely randomized trees with the interface of a Gaussian process; the spread is that of the trees."""

    def __init__(self, features: np.ndarray, targets: np.ndarray) -> None:
        self.trees = ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.5, random_state=0)
        self.trees.fit(features, targets)

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the trees."""
        by_tree = np.stack([tree.predict(features) for tree in self.trees.estimators_])
        return by_tree.mean(0), by_tree.std(0)


METHODS: dict[str, Callable[..., Regression]] = {"process": GaussianProcess, "trees": Trees}


def judged(table: LatencyTable, known: Sequence[BlockAt], others: Sequence[BlockAt], method: str) -> list[float]:
    """Error, share within the interval and CPU seconds of one prediction."""
    start = time.process_time()
    found = BlockPredictor(known, [table.blocks[at].typical_ms for at in known], METHODS[method]).predict(others)
    seconds = time.process_time() - start
    errors = np.abs(np.log([block.ms / table.blocks[at].typical_ms for block, at in zip(found, others, strict=True)]))
    inside = errors <= QUANTILE_80 * np.array([block.spread for block in found])
    return [float(errors.mean()), float(inside.mean()), seconds]


def draw(ordered: Sequence[BlockAt], count: int | None, seed: int) -> tuple[list[BlockAt], list[BlockAt]]:
    """The blocks that are known, and those to predict; None: small ones are known, large ones are to be predicted."""
    if count is None:
        known = random.Random(seed).sample(ordered[: int(0.7 * len(ordered))], EXTRAPOLATED_FROM)
        return known, list(ordered[int(0.85 * len(ordered)) :])
    known = random.Random(seed).sample(ordered, count)
    return known, [at for at in ordered if at not in set(known)]


def compare(path: Path, counts: Sequence[int], draws: int) -> list[dict[str, Any]]:
    """A line for each number of known blocks of one table."""
    table = LatencyTable.read(path)
    ordered = [at for at in table.blocks if at[0].kind == "inverted_residual"]
    ordered.sort(key=lambda at: sum(work(*at)[1:4]))
    lines = []
    for count in [*(count for count in counts if count < len(ordered)), None]:
        line: dict[str, Any] = {"table": path.stem, "known": "extrapolated" if count is None else count}
        for method in METHODS:
            found = [judged(table, *draw(ordered, count, seed), method) for seed in range(draws)]
            line[method] = dict(zip(("error", "within_80", "cpu_seconds"), np.mean(found, 0).tolist(), strict=True))
        line["ratio"] = line["process"]["error"] / line["trees"]["error"]
        print(
            f"{line['table']:20}{line['known']!s:>14}{line['process']['error']:9.2%}{line['trees']['error']:9.2%}"
            f"{line['ratio']:7.2f}{line['process']['within_80']:7.0%}{line['process']['cpu_seconds']:7.1f} s"
            f"{line['trees']['cpu_seconds']:7.1f} s"
        )
        lines.append(line)
    return lines


def main() -> None:
    """Compares, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="with some thousand blocks each")
    parser.add_argument("--blocks", type=int, nargs="+", default=[40, 80, 150, 300, 600, 1200])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    lines = [line for path in arguments.tables for line in compare(path, arguments.blocks, arguments.draws)]
    keep("block_prediction", {"draws": arguments.draws, "lines": lines}, arguments.json)


if __name__ == "__main__":
    main()
