"""Records as tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from dmask_mobile.cli.console import cell
from dmask_mobile.errors import DmaskError
from dmask_mobile.quantities import TABLE_UNITS, quantity

if TYPE_CHECKING:
    from dmask_mobile.records.accuracy import AccuracyRecord
    from dmask_mobile.records.estimate import Estimate
    from dmask_mobile.records.space import SearchSpace
    from dmask_mobile.run import BudgetRecord, SearchResultRecord
    from latency_tables.prediction.correction import Corrections, Form
    from latency_tables.prediction.metrics import MetricModel
    from latency_tables.profiling.judging import Evaluation
    from latency_tables.table.table import LatencyTable


def search_summary(result: SearchResultRecord, budgets: Sequence[BudgetRecord]) -> Iterator[str]:
    """The result of a search: the costs and the budgets, and how the child was chosen."""
    yield f"mean gate entropy {result.entropy:.2f}"
    for budget, cost, expected in zip(budgets, result.costs, result.expected, strict=True):
        yield (
            f"{budget.cost} {quantity(cost, budget.unit)}, expected by the gates {quantity(expected, budget.unit)},"
            f" budget {quantity(budget.limit, budget.unit)}"
        )
    match result.derivation:
        case "exact":
            yield f"score {result.score:.3f}: no child within the budget has a higher score"
        case "bounded":
            yield f"score {result.score:.3f}: no child within the budgets exceeds it by more than {result.gap:.3f}"
        case "ranked":
            best, worst = result.candidates[0].accuracy, result.candidates[-1].accuracy
            yield (
                f"the best of {len(result.candidates)} children within the budgets with the supernet's weights:"
                f" accuracy {best:.1%} (the last {worst:.1%})"
            )
            if exported := result.exported_accuracies:
                yield (
                    f"the best of the {len(exported)} that were exported: {result.rank_format} {result.rank_precision}"
                    f" accuracy {max(exported):.1%} (the worst {min(exported):.1%})"
                )
    if result.trials:
        accuracies = [trial.accuracy for trial in result.trials]
        yield f"{len(accuracies)} trials: accuracies from {min(accuracies):.1%} to {max(accuracies):.1%}"
    if result.lower_bound_relaxed and len(budgets) == 1:
        yield "no child has a cost within 5% below the budget; the cost of this one is lower"
    for warning in result.warnings:
        yield f"warning: {warning}"


QUANTILE_NAMES = {0.5: "the median", 0.25: "the lower quartile"}
MIN_TOLD_DRIFT = 0.001
RUN_WITH = ("runtime", "runtime_version", "precision", "delegate", "threads")


def latency_table_summary(table: LatencyTable) -> Table:
    """A table with the head, coverage and quality of a latency table."""
    shown = Table(title=cell(f"latency table {table.source}", "table.title"), title_justify="left", show_header=False)
    head = table.head
    if head.emulated:
        shown.add_row("emulated", "measured on an emulator; its times are meaningless")
    known_of_cpu = ("cpu", "governor", "turbo", "cpu_limit")
    for name in ("device", "soc", "system", "cores", "clocks_mhz", *known_of_cpu, "pinned_cores", *RUN_WITH):
        value = getattr(head, name)
        if value not in ("", (), 0):
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            shown.add_row(name.replace("_", " "), cell(text))
    if head.block_models:
        shown.add_row("models of blocks", cell(head.block_models))
    if head.prior:
        shown.add_row("began with", f"table {head.prior}: {len(table.prior)} blocks of another device or runtime")
    shown.add_row("reached as", cell(head.reached_at))
    shown.add_row("made", cell(head.created))
    kinds: dict[str, list[float]] = {}
    for (block, _), summary in table.blocks.items():
        kinds.setdefault(block.kind, []).append(summary.typical_ms)
    for kind, values in sorted(kinds.items()):
        shown.add_row(f"{kind} blocks", f"{len(values)}, {min(values):.4f} to {max(values):.4f} ms")
    networks = table.networks
    shown.add_row("whole networks", str(len(networks)))
    for name, value in _quality(table):
        shown.add_row(name, cell(value))
    for name, value in (*_metrics(table), *_said_of_itself(table)):
        shown.add_row(name, cell(value))
    if table.failures:
        shown.add_row("failed", str(len(table.failures)))
    return shown


def corrections_of(table: LatencyTable) -> Corrections | DmaskError:
    """The corrections that a table's whole networks give for sums of blocks, or the reason why there are none."""
    from latency_tables.prediction.latency_model import LatencyModel

    try:
        return LatencyModel(table).corrections
    except DmaskError as error:
        return error


def _quality(table: LatencyTable) -> Iterator[tuple[str, str]]:
    """How well networks are predicted from blocks, and how stable the device was."""
    corrections = corrections_of(table)
    if isinstance(corrections, DmaskError):
        yield "error on networks left out", f"unknown: {corrections.problem}"
    else:
        for resolution, (offset, scale) in corrections.lines.items():
            yield f"line at {resolution} px", f"latency = {offset:+.4f} ms + {scale:.3f} * sum of blocks"
        call_ms, moved_ms, weights_ms = corrections.context
        if corrections.lines:
            yield (
                "a block in a network",
                f"alone - {call_ms:.4f} ms - {moved_ms:.4f} ms a million values moved"
                f" + {weights_ms:.4f} ms a MB of weights",
            )
        yield "correction", describe_form(corrections.form)
        known = math.isfinite(corrections.error)
        error = f"{corrections.error:.1%} (spread {corrections.spread:.1%})"
        yield "error on networks left out", error if known else "unknown: too few whole networks"
    if table.rows:
        if table.scale != 1:
            yield "the device at its last check", device_now(table.scale - 1)
        yield "time of a round", f"{QUANTILE_NAMES[table.quantile]} of its runs that nothing interrupted"
        yield "disturbed rounds", f"{table.disturbed_share:.0%}"
        yield "noise between rounds", f"{table.noise():.1%}"
        yield "drift while measuring", f"{table.drift.min() - 1:+.1%} to {table.drift.max() - 1:+.1%}"


def describe_form(form: Form) -> str:
    """Which correction of the sum of blocks predicts networks best that were left out of its fit."""
    lines = {
        "by resolution": "a line for each resolution",
        "common": "one line for all resolutions",
        "ratio": "one factor",
        "none": "none: the plain sum is best",
    }[form.lines]
    return f"what changes inside a network, and {lines}" if form.with_context else lines


def _metrics(table: LatencyTable) -> Iterator[tuple[str, str]]:
    """What was measured of whole networks beside latency, and how well it is predicted."""
    from latency_tables.prediction.metrics import METRICS, MetricModel, what_is_lacking

    for metric in METRICS:
        values = table.metrics.get(metric, {}).values()
        if values:
            unit = TABLE_UNITS[metric]
            text = f"{len(values)} networks, {quantity(min(values), unit)} to {quantity(max(values), unit)}"
            if what_is_lacking(table, metric) is None:
                error = metric_error(MetricModel(table, metric))
                text += f"; error on networks left out {'unknown' if error is None else f'{error:.1%}'}"
            yield metric, text
        elif metric in table.not_reported:
            yield metric, f"not available: {table.not_reported[metric]}"


def metric_error(model: MetricModel) -> float | None:
    """The error of a metric on networks left out; None if the table cannot predict what the metric depends on."""
    try:
        return model.fitted.error
    except DmaskError:
        return None


def _said_of_itself(table: LatencyTable) -> Iterator[tuple[str, str]]:
    """The state that a phone reported during the measurements, and its runtime's estimates for operations."""
    from latency_tables.table.rows import BlockRow, ConditionsRow, NetworkRow, SharesRow

    hot = sum(isinstance(row, BlockRow | NetworkRow) and row.hot for row in table.rows)
    if hot:
        yield "measured hot", f"{hot} rounds"
    conditions = [row for row in table.rows if isinstance(row, ConditionsRow)]
    for name, field, unit in (
        ("battery", "battery_percent", "%"),
        ("battery temperature", "battery_celsius", " degrees C"),
    ):
        values = [value for row in conditions if (value := getattr(row, field)) is not None]
        if values:
            yield name, f"{min(values):g} to {max(values):g}{unit}"
    shares = next((row for row in table.rows if isinstance(row, SharesRow)), None)
    if shares is not None:
        largest = sorted(shares.shares, key=lambda share: -share[1])[:4]
        told = ", ".join(f"{name} {share:.0%}" for name, share in largest)
        yield "operations (the runtime's estimate)", f"{told} of {shares.child.name}"


def heat_map(table: LatencyTable) -> Table:
    """The number of measured inverted residuals for each input width (rows) and output width (columns)."""
    from latency_tables.profiling.plots import width_grid

    ins, outs, counts = width_grid(table)
    shown = Table(title="inverted residuals measured, by width in (down) and out (across)", title_justify="left")
    shown.add_column("")
    for width in outs:
        shown.add_column(str(width), justify="right")
    highest = max(1, int(counts.max())) if counts.size else 1
    for width, row in zip(ins, counts.tolist(), strict=True):
        cells = (cell(count, f"on rgb(0,{60 + 140 * count // highest},80)") if count else "" for count in row)
        shown.add_row(str(width), *cells)
    return shown


def evaluation_table(evaluation: Evaluation) -> Table:
    """A table with the figures of an evaluation, their 95% intervals, and its worst cases."""
    from dmask_mobile.records.block import RESIDUAL_KINDS

    shown = Table(title=f"{evaluation.num_children} unseen children", title_justify="left", show_header=False)

    def share(name: str, digits: int = 0) -> str:
        return f"{getattr(evaluation, name):.{digits}%}{_between(evaluation.intervals[name], f'.{digits}%')}"

    def tau(name: str) -> str:
        value = getattr(evaluation, name)
        return "-" if value is None else f"{value:.3f}{_between(evaluation.intervals[name], '.3f')}"

    for name, value in (
        ("mean error", share("mape", 2)),
        ("repeatability (error of a perfect table)", share("repeatability_mape", 2)),
        ("within 5%", share("within_5")),
        ("within 10%", share("within_10")),
        ("Kendall tau, over all", tau("kendall_tau")),
        ("Kendall tau, near", tau("kendall_tau_near")),
        ("inside the stated 80% interval", share("coverage_80")),
        ("inside it, widened by the noise here", share("coverage_80_widened")),
        ("mean error of the sum alone", f"{evaluation.mape_sum:.2%}"),
        ("mean error of the sum and one line", f"{evaluation.mape_line:.2%}"),
        ("the device now", device_now(evaluation.drift)),
        ("mean error without this scale", f"{evaluation.mape_unscaled:.2%}"),
        *((f"mean error of {m.metric}", f"{m.mape:.2%} ({m.num_children} children)") for m in evaluation.metrics),
    ):
        shown.add_row(name, value)
    for child in evaluation.worst():
        shown.add_row(
            cell(f"{child.error:+.1%} {child.child.name} at {child.child.resolution} px"),
            cell("; ".join(block.describe() for block in child.child.blocks if block.kind in RESIDUAL_KINDS)),
        )
    return shown


def device_now(drift: float) -> str:
    """How fast a device is beside what its table says, and what that means for predictions."""
    if abs(drift) < MIN_TOLD_DRIFT:
        return "as fast as the table says"
    return f"{abs(drift):.1%} {'slower' if drift > 0 else 'faster'} than the table says: scaled by {1 + drift:.3f}"


def _between(interval: tuple[float, float] | None, form: str) -> str:
    return "" if interval is None else f" ({format(interval[0], form)} to {format(interval[1], form)})"


def space_table(space: SearchSpace) -> Table:
    """A table of the decisions of a space and their options."""
    table = Table(
        title=cell(f"space {space.name}: {space.num_children():,} children", "table.title"), title_justify="left"
    )
    table.add_column("decision")
    table.add_column("options")
    for decision in space.decisions:
        table.add_row(decision.name, ", ".join(f"{option:g}" for option in decision.options))
    return table


def estimate_summary(estimate: Estimate) -> list[str]:
    """The result of a dry run as lines of text."""
    lines = [
        f"{step.num_steps:,} {step.kind}: {1e3 * step.seconds_per_step:.1f} ms each,"
        f" {duration(step.num_steps * step.seconds_per_step)}"
        for step in estimate.steps
    ]
    processes = "1 process" if estimate.num_processes == 1 else f"{estimate.num_processes} processes"
    return [
        *lines,
        f"about {duration(estimate.seconds)} in all, on {estimate.device}, {processes}",
        f"{estimate.peak_memory_bytes / 2**20:,.0f} MiB at most so far in each process",
    ]


def duration(seconds: float) -> str:
    """A duration as text for people.

    >>> duration(7), duration(75), duration(7300)
    ('7 s', '1:15 min', '2:01 h')
    """
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


def accuracy_summary(found: AccuracyRecord) -> Iterator[str]:
    """The result of a test as lines of text."""
    images = "test images" if found.split == "test" else "validation images (the data has no test split)"
    low, high = found.interval
    yield f"accuracy {found.accuracy:.2%} on {found.num_images:,} {images}, 95% interval {low:.2%} to {high:.2%}"
    rates = zip(found.class_accuracies(), found.class_names, strict=True)
    worst = sorted((rate, name) for rate, name in rates if rate is not None)[:3]
    yield f"hardest classes: {', '.join(f'{name} {rate:.0%}' for rate, name in worst)}"
    if found.num_skipped:
        yield f"left out {found.num_skipped:,} test images that cannot be decoded"
    if found.times_opened > 1 and found.split == "test":
        yield f"the test split was opened {found.times_opened} times for this run: do not choose networks by it"
