"""``dmask sweep``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from dmask_mobile import api
from dmask_mobile.cli.budgets import parse_budget_values
from dmask_mobile.cli.console import console, print_json
from dmask_mobile.cli.options import (
    AllowDrift,
    ChildPrecision,
    Cost,
    Data,
    Flip,
    Json,
    Memory,
    SkipBad,
    Tables,
    TakeEmulated,
    Workers,
    data_options,
)
from dmask_mobile.cli.progress import ShownProgress
from dmask_mobile.cli.run_commands import search, train
from dmask_mobile.cli.sweep_tables import front_table, summary_table
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.setting_names import EngineName


def sweep(
    space: Annotated[str, typer.Argument(help="A shipped space, or a YAML file.")],
    data: Data,
    budgets: Annotated[
        list[str],
        typer.Option(
            help="latency=4ms,6ms,8ms: the values of one budget, named as for 'dmask search'. Repeat it for other"
            " costs: every combination is run. latency=0.35x,0.5x: shares of what the widest network takes."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The sweep's folder.")],
    seeds: Annotated[
        int,
        typer.Option(min=1, help="Runs for each budget, with the seeds 0, 1, 2 and so on; at most 1,000 runs in all."),
    ] = 1,
    table: Tables = None,
    cost: Cost = None,
    precision: ChildPrecision = None,
    allow_drift: AllowDrift = False,
    emulated: TakeEmulated = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each search. Default: those of dmask search.")
    ] = None,
    train_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of each training. Default: the recipe's.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Batch size of both. Default: their own.")] = None,
    search_option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE or NAME: the option --NAME of 'dmask search', for example samples=4; repeatable."
        ),
    ] = None,
    train_option: Annotated[
        list[str] | None,
        typer.Option(help="The same for 'dmask train', for example init=supernet; may be repeated."),
    ] = None,
    flip: Flip = None,
    skip_bad: SkipBad = None,
    memory: Memory = None,
    workers: Workers = None,
    jobs: Annotated[int, typer.Option(min=1, help="The number of runs at the same time; they share the cores.")] = 1,
    engine: Annotated[EngineName, typer.Option(help="Processes on this machine, or Ray tasks.")] = "local",
    as_json: Json = False,
) -> None:
    """Search and train for several budgets and seeds, and show the Pareto front.

    If it is started again, it continues where it stopped.

    Example: dmask sweep demo --data glyphs --budgets latency=0.06ms,0.08ms --seeds 3 --table table.jsonl -o sweep
    """
    for_search = _options(search_option or [], epochs=epochs, batch_size=batch_size)
    for_train = _options(train_option or [], epochs=train_epochs, batch_size=batch_size)
    _check("search", ["SPACE", "--data=DATA", "--budget=BUDGET", "--output=RUN"], for_search)
    _check("train", ["RUN"], for_train)
    limits = parse_budget_values(budgets)
    with ShownProgress() as progress:
        record = api.sweep(
            space,
            data,
            limits,
            output,
            seeds=seeds,
            tables=table or [],
            cost=cost,
            precision=precision,
            allow_drift=allow_drift,
            emulated=emulated,
            data_options=data_options(flip, skip_bad, memory, workers),
            search_options=for_search,
            train_options=for_train,
            jobs=jobs,
            engine=engine,
            progress=progress,
        )
    if as_json:
        print_json(record.to_dict())
    elif record.points:
        console.print(front_table(record))
        console.print(summary_table(record))
        console.print(f"record in {output / 'sweep.json'}, picture in {output / 'front.png'} and front.svg")
    if record.failed:
        names = "; ".join(f"{failed.run}: {failed.reason}" for failed in record.failed)
        raise DmaskError(
            f"{len(record.failed)} of {record.num_runs} runs failed: {names}",
            f"see sweep.log in their folders below '{output}'; the same command tries them again",
        )


def _options(texts: Iterable[str], **named: int | None) -> dict[str, str | bool]:
    """Options by name: the ``named`` ones that were given, and those written as ``NAME=VALUE`` or ``NAME``."""
    found: dict[str, str | bool] = {
        name.replace("_", "-"): str(value) for name, value in named.items() if value is not None
    }
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        if not name or name in found:
            raise DmaskError(
                f"an option of a sweep's runs must be NAME=VALUE, with each name once, got '{shown(text)}'",
                "for example samples=4",
            )
        found[name] = value if equals else True
    return found


def _check(command: str, needed: list[str], options: dict[str, str | bool]) -> None:
    """Checks that a command takes these options.

    Raises:
        DmaskError: with the message of the command's own parser.
    """
    from dmask_mobile.sweep.design import option_arguments

    commands = typer.Typer()
    for function in (search, train):
        commands.command()(function)
    parser = typer.main.get_group(commands).commands[command]
    try:
        parser.make_context(command, [*needed, *option_arguments(options)])
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error; typer's versions have no common class for it
            raise
        raise DmaskError(f"'dmask {command}': {error.format_message()}", f"see 'dmask {command} --help'") from None
