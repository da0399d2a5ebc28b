"""``dmask report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmask_mobile import api
from dmask_mobile.cli.console import console, print_json
from dmask_mobile.cli.options import Json


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, finished or not.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.html")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write a page about runs: verdict, network, latency, search, numerics, accuracy. It needs no network.

    Example: dmask report runs/a runs/b -o report.html
    """
    written = api.report(runs, output)
    if as_json:
        print_json({"report": str(written), "size_bytes": written.stat().st_size, "runs": [str(run) for run in runs]})
    else:
        console.print(f"report in {written}", soft_wrap=True)
