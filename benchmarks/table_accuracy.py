"""How well does a table of fbnetv2_f, built from nothing in minutes, predict children that it never saw?

    python benchmarks/table_accuracy.py [--json] [--minutes 5] [--children 100] [--threads 1] [--work FOLDER]

This machine, ONNX Runtime, fp32, batch 1, wall time, children at all eight resolutions. Beside the table's own error:
that of the uncorrected sum and of the sum and one line, the repeatability (the error that a perfect table would have),
networks that are not of the space (FBNetV2-F1 to F4, FBNet-C, their missing blocks measured first), and the error that
the table would have had after each minute. Where the device is too busy to judge, the children are measured again;
every try is in the result. Writes
``benchmarks/results/table_accuracy_THREADS.json`` and, with one thread, ``docs/table_accuracy.png`` and
``docs/table_error_by_minute.png``. Run it alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import keep

from dmask_mobile import api
from dmask_mobile.costs.latency import Latency
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.named import named_child, named_children
from latency_tables.prediction.correction import fit_corrections
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.evaluate import evaluate
from latency_tables.profiling.judging import Evaluation, judge
from latency_tables.profiling.plots import plot_evaluation
from latency_tables.profiling.profile import stability
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.table.rows import SentinelRow
from latency_tables.table.table import LatencyTable

ROOT = Path(__file__).parents[1]
MAX_TRIES = 4


def error_by_minute(table: LatencyTable, evaluation: Evaluation) -> list[dict[str, float]]:
    """The mean error on the same children of the table as it was after each half minute."""
    found, due = [], 30.0
    for place, row in enumerate(table.rows):
        last = place == len(table.rows) - 1
        if not last and not (isinstance(row, SentinelRow) and row.elapsed_s >= due):
            continue
        part = LatencyTable(table.head, table.rows[: place + 1], table.source)
        if len(part.networks) < 20:
            due += 30
            continue
        latency = Latency(LatencyModel(part))
        children = [
            child.model_copy(update={"predicted_ms": latency.estimate(child.child).value})
            for child in evaluation.children
        ]
        elapsed = max(r.elapsed_s for r in part.rows if isinstance(r, SentinelRow))
        found.append({"minutes": elapsed / 60, "blocks": len(part.blocks), "mape": judge(children).mape})
        due += 30
    return found


def named_errors(path: Path) -> dict[str, dict[str, float]]:
    """Published networks: predicted, measured, error; blocks that the table lacks are measured first."""
    before = len(LatencyTable.read(path).blocks)
    children = [named_child(name) for name in named_children()]
    for child in children:
        api.profile_missing(child, path)
    table = LatencyTable.read(path)
    measured, _ = on_a_quiet_device(lambda: evaluate(table, children))
    return {
        child.child.name: {"predicted_ms": child.predicted_ms, "measured_ms": child.measured_ms, "error": child.error}
        for child in measured.judged()
    } | {"blocks_measured_for_them": {"count": len(table.blocks) - before}}


def errors_by_networks(table: LatencyTable, evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The error of corrections that are fitted to a few random networks, on all others that were measured.

    The mean and the largest of 20 draws. The networks are those of the table, at its usual speed, and those of the
    evaluation.
    """
    model, random = LatencyModel(table), np.random.default_rng(0)
    judged = [(child.child, child.measured_ms / (1 + evaluation.drift)) for child in evaluation.children]
    model.predict(located for child, _ in judged for located in child.located_blocks())
    networks = [*model.whole_networks(), *(model.whole_network(child, ms) for child, ms in judged)]
    found = {}
    for count in (16, 24, 40):
        errors = []
        for _ in range(20):
            order = random.permutation(len(networks))
            fitted = fit_corrections([networks[number] for number in order[:count]])
            others = [networks[number] for number in order[count:]]
            errors.append(float(np.mean([abs(fitted.apply(n) / n.measured_ms - 1) for n in others])))
        found[str(count)] = {"mean": float(np.mean(errors)), "largest": max(errors)}
    return found


def cost_tensor_seconds(path: Path) -> float:
    """From a table to the cost tensors of the whole space, nothing cached."""
    start = time.monotonic()
    Latency(LatencyModel(LatencyTable.read(path))).on(api.load_space("fbnetv2_f"))
    return time.monotonic() - start


def plot_error_by_minute(points: list[dict[str, float]], path: Path) -> None:
    """Mean error against minutes of profiling."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([p["minutes"] for p in points], [100 * p["mape"] for p in points], marker="o")
    axes.set(xlabel="minutes of profiling", ylabel="mean error on 100 unseen children (%)", ylim=(0, None))
    figure.savefig(path, dpi=110)


def tell(stage: str, done: int, total: int, note: str = "") -> None:
    """Progress, a line each."""
    print(f"{stage} {done}/{total} {note}", flush=True)


def on_a_quiet_device(evaluate_once: Callable[[], Evaluation]) -> tuple[Evaluation, list[dict[str, Any]]]:
    """The first evaluation that the device was quiet enough for, and what every one tried said.

    Raises:
        DmaskError: when the device was too busy each time.
    """
    tried: list[dict[str, Any]] = []
    while True:
        try:
            evaluation = evaluate_once()
        except DmaskError as error:
            tried.append({"refused": error.problem})
            if len(tried) == MAX_TRIES:
                raise
            continue
        tried.append(
            {key: getattr(evaluation, key) for key in ("drift", "mape", "mape_unscaled", "repeatability_mape")}
        )
        return evaluation, tried


def measure(minutes: float, children: int, threads: int, work: Path) -> dict[str, Any]:
    """Builds, judges, and looks back."""
    space, path = api.load_space("fbnetv2_f"), work / "table.jsonl"
    table = api.profile(space, path, threads=threads, settings=ProfileSettings(minutes=minutes), progress=tell)
    build_minutes = max(row.elapsed_s for row in table.rows if isinstance(row, SentinelRow)) / 60
    evaluation, tried = on_a_quiet_device(lambda: api.evaluate_table(path, space, children=children, progress=tell))
    points = error_by_minute(table, evaluation)
    (work / "evaluation.json").write_text(evaluation.model_dump_json())
    if threads == 1:
        plot_evaluation(evaluation, ROOT / "docs" / "table_accuracy.png")
        plot_error_by_minute(points, ROOT / "docs" / "table_error_by_minute.png")
    return {
        "build_minutes": build_minutes,
        **evaluation.model_dump(mode="json", exclude={"children"}),
        "worst": [{"child": c.child.name, "px": c.child.resolution, "error": c.error} for c in evaluation.worst()],
        "evaluations_tried": tried,
        "blocks": len(table.blocks),
        "networks": len(table.networks),
        "left_out_error": LatencyModel(table).corrections.error,
        "drift_while_building": [float(table.drift.min()), float(table.drift.max())],
        "noise": table.noise(),
        "stability": stability(table),
        "cost_tensor_seconds": cost_tensor_seconds(path),
        "error_by_minute": points,
        "errors_by_networks": errors_by_networks(table, evaluation),
        "named": named_errors(path),
        "head": table.head.to_dict(),
    }


def main() -> None:
    """Measures, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--minutes", type=float, default=5.0, help="for building the table")
    parser.add_argument("--children", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder for the table; a new one by default")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="table-accuracy-"))
    work.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.minutes, arguments.children, arguments.threads, work)
    keep(f"table_accuracy_{arguments.threads}", result, arguments.json)
    if arguments.json:
        return
    for key in (
        "build_minutes", "blocks", "networks", "mape", "mape_unscaled", "drift", "mape_line", "mape_sum",
        "repeatability_mape", "within_5", "within_10", "kendall_tau", "kendall_tau_near", "coverage_80",
        "coverage_80_widened", "cost_tensor_seconds",
    ):  # fmt: skip
        print(f"{key:>20} {result[key]:.4g}")
    for name, found in result["named"].items():
        print(f"{name:>20} {found}")


if __name__ == "__main__":
    main()
