"""`RunPage`: the pictures, rows and tiles of one run; the templates only arrange them."""

from __future__ import annotations

from typing import NamedTuple

from dmask_mobile.records.verification import Check
from dmask_mobile.report.charts.confusion import confusion_chart
from dmask_mobile.report.charts.marks import Chart
from dmask_mobile.report.charts.network import network_chart
from dmask_mobile.report.measured_parts import LatencyPart, NumericsRow, latency_part, numerics_rows
from dmask_mobile.report.records import AccuracyView, RunView
from dmask_mobile.report.search_parts import GatePicture, curves_of, epoch_rows, gate_pictures
from dmask_mobile.report.verdict_parts import BudgetRow, Tile, budget_row, tiles_of


class RunPage(NamedTuple):
    """One run as the page shows it; ``number`` makes names inside the page unique."""

    number: int
    run: RunView
    tiles: tuple[Tile, ...]
    wrong: tuple[tuple[Check, str], ...]
    checks: tuple[tuple[Check, str], ...]
    budgets: tuple[BudgetRow, ...]
    network: Chart
    latency: tuple[LatencyPart, ...]
    curves: tuple[Chart, ...]
    epoch_columns: tuple[str, ...]
    epochs: tuple[tuple[int, tuple[str, ...]], ...]
    gates: tuple[GatePicture, ...]
    numerics_columns: tuple[str, ...]
    numerics: tuple[NumericsRow, ...]
    accuracies: tuple[tuple[AccuracyView, Chart | None], ...]


def run_page(number: int, run: RunView) -> RunPage:
    """The page of one run."""
    judged = tuple(zip(run.checks, run.verdicts, strict=True))
    columns, numerics = numerics_rows(run)
    epoch_columns, epochs = epoch_rows(run)
    return RunPage(
        number=number,
        run=run,
        tiles=tuple(tiles_of(run)),
        wrong=tuple((check, verdict) for check, verdict in judged if verdict in ("failed", "not verified")),
        checks=judged,
        budgets=tuple(map(budget_row, run.budgets)),
        network=network_chart(run.blocks, next((table.blocks for table in run.tables if table.blocks), ())),
        latency=tuple(latency_part(run, table) for table in run.tables if table.blocks),
        curves=tuple(curves_of(run)),
        epoch_columns=epoch_columns,
        epochs=epochs,
        gates=tuple(gate_pictures(run)),
        numerics_columns=columns,
        numerics=numerics,
        accuracies=tuple((found, confusion_chart(found)) for found in run.accuracies),
    )
