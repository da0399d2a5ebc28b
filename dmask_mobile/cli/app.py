"""The command line: which commands there are, in the order in which they are used."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dmask_mobile import __version__
from dmask_mobile.cli.card_commands import card
from dmask_mobile.cli.deploy_commands import export, verify
from dmask_mobile.cli.device_commands import devices, doctor
from dmask_mobile.cli.report_commands import report, status
from dmask_mobile.cli.run_commands import demo, open_test_split, search, train
from dmask_mobile.cli.space_commands import space_app
from dmask_mobile.cli.sweep_commands import sweep
from dmask_mobile.cli.table_commands import profile, table_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Profile a device, search a network under its budget, train it, export it, verify it.",
)
app.command()(devices)
app.command()(doctor)
app.command()(demo)
app.command()(profile)
app.command()(search)
app.command()(train)
app.command()(sweep)
app.command("test")(open_test_split)
app.command()(export)
app.command()(verify)
app.command()(report)
app.command()(status)
app.command()(card)
app.add_typer(table_app, name="table")
app.add_typer(space_app, name="space")


@app.callback(invoke_without_command=True)
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Profile a device, search a network under its budget, train it, export it, verify it."""
    if debug:
        os.environ["DMASK_DEBUG"] = "1"
    if version:
        typer.echo(__version__)
        raise typer.Exit
