"""How well do tables of each runtime predict children that are not in them, and do the runtimes agree?

    python benchmarks/runtimes.py tables [RUNTIME ...] [--minutes 14] [--children 30] [--json] [--work FOLDER]
    python benchmarks/runtimes.py ranks [--json] [--work FOLDER]

``tables``: builds a new table of each runtime for the space mobilenet_small on this machine with one thread and fp32
(the cache of models starts empty), and measures the same random children with each runtime in four passes. If the
device is too busy to judge, they are measured again. ``ranks``: uses the measured children in the folder of ``tables``.
It computes Kendall's tau between runtimes. Then it chooses for each runtime the child with the most multiply-adds among
those with at most the median latency, and computes its rank and latency on the other runtimes. The script writes
``benchmarks/results/runtimes_RUNTIME.json`` and ``runtimes_ranks.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import keep
from scipy.stats import kendalltau
from table_accuracy import on_a_quiet_device, tell

from dmask_mobile import api
from dmask_mobile.costs.counts import Macs
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.judging import Evaluation
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.table.rows import SentinelRow

SPACE = "mobilenet_small"
RUNTIMES = ("onnxruntime", "litert", "executorch", "ncnn")


def measure(runtime: str, minutes: float, children: int, work: Path) -> dict[str, Any]:
    """A new table, evaluated."""
    space, path = api.load_space(SPACE), work / f"{runtime}.jsonl"
    start = time.monotonic()
    table = api.profile(space, path, runtime=runtime, settings=ProfileSettings(minutes=minutes), progress=tell)
    seconds = time.monotonic() - start
    evaluation, tried = on_a_quiet_device(lambda: api.evaluate_table(path, space, children=children, progress=tell))
    (work / f"{runtime}.evaluation.json").write_text(evaluation.model_dump_json())
    return {
        "build_minutes": seconds / 60,
        "minutes_at_last_sentinel": max(row.elapsed_s for row in table.rows if isinstance(row, SentinelRow)) / 60,
        "blocks": len(table.blocks),
        "networks": len(table.networks),
        **evaluation.model_dump(mode="json", exclude={"children"}),
        "worst": [{"child": c.child.name, "px": c.child.resolution, "error": c.error} for c in evaluation.worst()],
        "evaluations_tried": tried,
        "left_out_error": LatencyModel(table).corrections.error,
        "drift_while_building": [float(table.drift.min()), float(table.drift.max())],
        "noise": table.noise(),
        "head": table.head.to_dict(),
    }


def ranks(work: Path) -> dict[str, Any]:
    """How well the ranking of the children by one runtime holds on another."""
    found = {
        runtime: Evaluation.model_validate_json((work / f"{runtime}.evaluation.json").read_text())
        for runtime in RUNTIMES
    }
    children = [[measured.child.digest() for measured in evaluation.children] for evaluation in found.values()]
    assert all(each == children[0] for each in children)
    measured = {name: np.array([child.measured_ms for child in each.children]) for name, each in found.items()}
    predicted = {name: np.array([child.predicted_ms for child in each.children]) for name, each in found.items()}
    macs = np.array([Macs().estimate(child.child).value for child in found[RUNTIMES[0]].children])
    taus = {
        f"{one} by {other}": float(kendalltau(predicted[other], measured[one]).statistic)
        for one in RUNTIMES
        for other in RUNTIMES
    }
    taus |= {f"{one} by macs": float(kendalltau(macs, measured[one]).statistic) for one in RUNTIMES}
    return {
        "kendall_tau_of_measured_by_predicted": taus,
        "searched_for": {runtime: searched_for(runtime, predicted, measured, macs) for runtime in RUNTIMES},
    }


def searched_for(
    runtime: str, predicted: dict[str, np.ndarray], measured: dict[str, np.ndarray], macs: np.ndarray
) -> dict[str, Any]:
    """The child that a runtime's table chooses below its median latency, and its results on each runtime.

    ``over_budget``: its latency divided by the median of that runtime. ``macs_of_own_choice``: its multiply-adds
    divided by those of the child that the table of that runtime chooses.
    """

    def choice(name: str) -> int:
        return int(np.argmax(np.where(predicted[name] <= np.median(predicted[name]), macs, -1)))

    chosen = choice(runtime)
    return {
        name: {
            "ms": float(measured[name][chosen]),
            "over_budget": float(measured[name][chosen] / np.median(measured[name])) - 1,
            "macs_of_own_choice": float(macs[chosen] / macs[choice(name)]),
        }
        for name in RUNTIMES
    }


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tables", "ranks"))
    parser.add_argument("runtimes", nargs="*", default=RUNTIMES)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--minutes", type=float, default=14.0, help="for building each table")
    parser.add_argument("--children", type=int, default=30)
    parser.add_argument("--work", type=Path, help="folder for the tables; a new one by default")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="runtimes-"))
    work.mkdir(parents=True, exist_ok=True)
    if arguments.what == "ranks":
        keep("runtimes_ranks", ranks(work), arguments.json)
        return
    for runtime in arguments.runtimes:
        with tempfile.TemporaryDirectory(prefix="dmask-cache-") as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            result = measure(runtime, arguments.minutes, arguments.children, work)
        keep(f"runtimes_{runtime}", result, arguments.json)
        for key in (
            "build_minutes", "blocks", "networks", "mape", "mape_unscaled", "drift", "repeatability_mape",
            "within_5", "within_10", "kendall_tau", "mape_sum", "coverage_80",
            "coverage_80_widened",
        ):  # fmt: skip
            print(f"{runtime:>12} {key:>20} {result[key]:.4g}", flush=True)


if __name__ == "__main__":
    main()
