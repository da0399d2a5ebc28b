"""``dmask report``, ``dmask status`` and ``dmask plot``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dmask_mobile import api
from dmask_mobile.cli.console import cell, console, note, print_json
from dmask_mobile.cli.json_results import WrittenPicture, WrittenReport
from dmask_mobile.cli.options import Json, Run

STATE_STYLES = {
    "done": "green",
    "failed": "bold red",
    "under way": "yellow",
    "out of date": "yellow",
    "not verified": "yellow",
}


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, finished or not, and folders of sweeps."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.html")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write a self-contained page about runs: verdict, network, latency, search, numerics and accuracy.

    Example: dmask report runs/a runs/b -o report.html
    """
    _note_writers(runs)
    written = api.report(runs, output)
    if as_json:
        print_json(
            WrittenReport(report=str(written), size_bytes=written.stat().st_size, runs=[str(run) for run in runs])
        )
    else:
        console.print(f"report in {written}", soft_wrap=True)


def status(run: Run, as_json: Json = False) -> None:
    """Show the finished steps of a run, the next step, and the command for it.

    Example: dmask status runs/a
    """
    _note_writers([run])
    found = api.status(run)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    table = Table(title=cell(f"run {found.run}", "table.title"), title_justify="left", show_header=False)
    for step in found.steps:
        table.add_row(step.name, cell(step.state, STATE_STYLES.get(step.state, "")), cell(step.detail))
    console.print(table)
    if found.next is None:
        console.print("everything is done")
    else:
        console.print(f"next: {found.next.command}", soft_wrap=True)


def plot(
    run: Run,
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.png or FILE.svg")],
    as_json: Json = False,
) -> None:
    """Draw a run's search by epoch: expected cost against budget, entropy, and the probabilities of the gates.

    Example: dmask plot runs/a -o search.svg
    """
    _note_writers([run])
    picture = api.plot_search(run, output)
    if as_json:
        print_json(WrittenPicture(picture=str(picture)))
    else:
        console.print(str(picture), soft_wrap=True)


def _note_writers(runs: Iterable[Path]) -> None:
    """Says which commands are writing to the folders, because what is shown of them may be incomplete."""
    from dmask_mobile.files import writer_of

    for run in runs:
        if writer := writer_of(run):
            note(f"{writer} is writing to '{run}' now; what is shown may be incomplete")
