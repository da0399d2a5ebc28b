"""The list of commands, in the order in which they are used."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import dmask_mobile
from dmask_mobile.cli.card_commands import card
from dmask_mobile.cli.console import show_logs
from dmask_mobile.cli.deploy_commands import export, verify
from dmask_mobile.cli.device_commands import devices, doctor
from dmask_mobile.cli.help import show_docstrings
from dmask_mobile.cli.report_commands import plot, report, status
from dmask_mobile.cli.run_commands import demo, open_test_split, search, train
from dmask_mobile.cli.space_commands import space_app
from dmask_mobile.cli.sweep_commands import sweep
from dmask_mobile.cli.table_commands import profile, table_app

SET_UP, CHAIN, LOOK = "Set up", "The chain, in order", "Look"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=SET_UP)(devices)
app.command(rich_help_panel=SET_UP)(doctor)
app.command(rich_help_panel=CHAIN)(demo)
app.command(rich_help_panel=CHAIN)(profile)
app.command(rich_help_panel=CHAIN)(search)
app.command(rich_help_panel=CHAIN)(train)
app.command("test", rich_help_panel=CHAIN)(open_test_split)
app.command(rich_help_panel=CHAIN)(export)
app.command(rich_help_panel=CHAIN)(verify)
app.command(rich_help_panel=CHAIN)(sweep)
app.command(rich_help_panel=LOOK)(report)
app.command(rich_help_panel=LOOK)(status)
app.command(rich_help_panel=LOOK)(plot)
app.command(rich_help_panel=LOOK)(card)
app.add_typer(table_app, name="table", rich_help_panel=LOOK)
app.add_typer(space_app, name="space", rich_help_panel=LOOK)
for part in (app, table_app, space_app):
    show_docstrings(part)


@app.callback(invoke_without_command=True)
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors and all log messages.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only the result and errors: no progress, no notes.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Profile a device, search a network within a budget, train it, export it and verify it.

    The help of every command has an example, and --json prints results for programs. Begin with: dmask demo
    """
    if debug:
        os.environ["DMASK_DEBUG"] = "1"
    show_logs(debug=debug, quiet=quiet)
    if version:
        typer.echo(dmask_mobile.__version__)
        raise typer.Exit
