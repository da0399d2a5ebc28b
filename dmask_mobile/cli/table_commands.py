"""``dmask table``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmask_mobile.cli.options import Json, console, print_json
from dmask_mobile.cli.tables import latency_table_summary

if TYPE_CHECKING:
    from latency_tables.table import LatencyTable

table_app = typer.Typer(no_args_is_help=True, help="Latency tables.")


def table_json(table: LatencyTable) -> dict[str, Any]:
    """Head, coverage and quality of a table."""
    return {
        **table.head.to_dict(),
        "num_blocks": len(table.blocks),
        "num_networks": len(table.networks),
        "relative_spread": table.relative_spread(),
        "noise": table.noise(),
    }


@table_app.command("show")
def table_show(table: Annotated[Path, typer.Argument(help="A latency table.")], as_json: Json = False) -> None:
    """What a table was measured on, what it covers and how good it is.

    Example: dmask table show table.jsonl
    """
    from latency_tables.table import LatencyTable

    read = LatencyTable.read(table)
    if as_json:
        print_json(table_json(read))
    else:
        console.print(latency_table_summary(read))
