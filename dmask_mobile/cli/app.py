"""One function a command."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from dmask_mobile import __version__, api
from dmask_mobile.cli.progress import ShownProgress
from dmask_mobile.cli.tables import latency_table_summary, quantity, space_table, verification_table
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.verification import Verification

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Profile a device, search a network under its budget, train it, export it, verify it.",
)
table_app = typer.Typer(no_args_is_help=True, help="Latency tables.")
space_app = typer.Typer(no_args_is_help=True, help="Search spaces.")
app.add_typer(table_app, name="table")
app.add_typer(space_app, name="space")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
Data = Annotated[str, typer.Option(help="glyphs[:FONTS], fashion-mnist[:FOLDER] or a folder of images by class.")]
OptionalData = Annotated[str | None, typer.Option(help="Other data than the run's own.")]
OptionalTable = Annotated[Path | None, typer.Option(help="A latency table made with 'dmask profile'.")]

# Piped output has no width of its own; a table wants more than the 80 columns that rich assumes then.
console = Console(width=None if sys.stdout.isatty() else 140)


class Loss(StrEnum):
    """The losses of `dmask_mobile.search.losses`."""

    budget = "budget"
    fbnet = "fbnet"
    linear = "linear"


class Initial(StrEnum):
    """Where a child's training starts."""

    scratch = "scratch"
    supernet = "supernet"


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=1))


def _show_verification(verification: Verification, run: Path, as_json: bool) -> None:
    if as_json:
        _print_json({**verification.to_dict(), "passed": verification.passed, "run": str(run)})
    else:
        console.print(verification_table(verification, f"child {verification.child_digest} in {run}"))
        console.print("verified" if verification.passed else "NOT verified: see the verdicts above")
    if not verification.passed:
        raise typer.Exit(1)


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


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder that gets the new run folder.")] = Path(
        "runs"
    ),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """The whole chain on this machine, in minutes: profile, search, train, export, verify.

    Example: dmask demo
    """
    with ShownProgress() as progress:
        run, verification = api.demo(output, seed=seed, progress=progress)
    _show_verification(verification, run, as_json)


@app.command()
def profile(
    space: Annotated[str, typer.Argument(help="A space that ships, or a YAML file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The table to write or to go on with.")],
    classes: Annotated[int | None, typer.Option(help="Classes of the head, if not the space's own.")] = None,
    runtime: Annotated[str, typer.Option(help="onnxruntime")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each block is measured, apart in time.")] = 5,
    as_json: Json = False,
) -> None:
    """Measure every block of a space on this machine into a latency table.

    Example: dmask profile demo --classes 10 -o table.jsonl
    """
    from latency_tables.profile import ProfileSettings

    found = api.load_space(space)
    found = found.with_classes(classes) if classes else found
    settings = ProfileSettings(rounds=rounds, threads=threads)
    with ShownProgress() as progress:
        table = api.profile(found, output, runtime=runtime, settings=settings, progress=progress)
    if as_json:
        _print_json(_table_json(table))
    else:
        console.print(latency_table_summary(table))


def parse_budget(text: str) -> tuple[str, float]:
    """``NAME=VALUE`` with an optional unit: ms for latency, K or M for counts.

    Raises:
        DmaskError: when it is anything else.

    >>> parse_budget("macs=1.5M")
    ('macs', 1500000.0)
    """
    name, _, value = text.partition("=")
    factors = {"ms": 1.0} if name == "latency" else {"K": 1e3, "M": 1e6, "G": 1e9}
    suffix = next((s for s in factors if value.endswith(s)), "")
    try:
        number = float(value.removesuffix(suffix)) * factors.get(suffix, 1.0)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise DmaskError(f"a budget is NAME=VALUE with a positive value, got '{text}'", "for example latency=0.08ms")
    return name, number


@app.command()
def search(
    space: Annotated[str, typer.Argument(help="A space that ships, or a YAML file.")],
    data: Data,
    budget: Annotated[list[str], typer.Option(help="latency=0.08ms, macs=1.5M or params=60K; may be repeated.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The run folder.")],
    table: OptionalTable = None,
    cost: Annotated[str | None, typer.Option(help="A cost of your own: module:Class.")] = None,
    loss: Annotated[
        Loss, typer.Option(help="What the gates minimize; only 'budget' lands on the budget.")
    ] = Loss.budget,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Search a space under a budget and derive the child. Started again, it goes on where it stopped.

    Example: dmask search demo --data fashion-mnist --budget latency=0.07ms --table table.jsonl -o runs/a
    """
    from dmask_mobile.search.search import SearchSettings

    settings = SearchSettings(loss=loss.value, epochs=epochs, batch_size=batch_size, seed=seed)
    found, budgets = api.load_space(space), dict(parse_budget(text) for text in budget)
    with ShownProgress() as progress:
        result = api.search(
            found,
            data,
            budgets,
            output,
            table=table,
            costs=[api.load_cost(cost)] if cost else [],
            settings=settings,
            progress=progress,
        )
    if as_json:
        _print_json(result.to_dict())
        return
    console.print(f"child in {output / 'child.json'}, mean gate entropy {result.entropy:.2f}")
    for (name, limit), cost_found, expected in zip(budgets.items(), result.costs, result.expected, strict=True):
        unit = "ms" if name == "latency" else name
        console.print(
            f"{name} {quantity(cost_found, unit)}, expected by the gates {quantity(expected, unit)},"
            f" budget {quantity(limit, unit)}"
        )
    if len(budgets) > 1:
        console.print(
            f"score {result.score:.3f}; the best child within all budgets scores at most {result.gap:.3f} more"
        )
    elif result.floor_dropped:
        console.print("no child lies within 5% below the budget; this is the best one further below")


@app.command()
def train(
    run: Run,
    data: OptionalData = None,
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    learning_rate: float = 0.2,
    init: Annotated[
        Initial, typer.Option(help="Start from random weights or from the child's slice of the supernet.")
    ] = Initial.scratch,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Train the run's child. Started again, it goes on where it stopped.

    Example: dmask train runs/a --epochs 30
    """
    from dmask_mobile.training.train import TrainSettings

    settings = TrainSettings(
        init=init.value, epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )
    with ShownProgress() as progress:
        accuracy = api.train(run, data=data, settings=settings, progress=progress)
    if as_json:
        _print_json({"run": str(run), "accuracy": accuracy})
    else:
        console.print(f"accuracy {accuracy:.2%} on the validation images")


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="RUN|NAME|CHILD.JSON", help="What to export.")],
    formats: Annotated[str, typer.Option("--format", help="Comma-separated: onnx, coreml")] = "onnx,coreml",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run folder to make for a NAME or a child.json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a run's child, a published network by name, or the child in a JSON file (both with random weights).

    Example: dmask export runs/a --format onnx,coreml
    """
    run = _run_of(source, output)
    with ShownProgress() as progress:
        artifacts = api.export(run, [name.strip() for name in formats.split(",")], progress)
    if as_json:
        _print_json([artifact.to_dict() for artifact in artifacts])
        return
    for artifact in artifacts:
        size = quantity(artifact.size_bytes, "bytes")
        console.print(f"{artifact.model_format}: {run / 'exports' / artifact.path}, {size}")


def _run_of(source: str, output: Path | None) -> Path:
    """The run folder of what ``dmask export`` was given; made first for a name or a child file."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.suffix == ".json" or path.is_file():
        child = ChildSpec.read(path)
    else:
        from dmask_mobile.nets.named import named_child, named_children

        if source not in named_children():
            raise DmaskError(
                f"'{source}' is no run folder, no child.json and no network's name",
                f"the names are {', '.join(named_children())}",
            )
        child = named_child(source)
    run = output or Path("runs") / child.name
    api.start_run(child, run)
    Console(stderr=True).print(f"{child.name}: random weights (seed 0), run folder {run}")
    return run


@app.command()
def verify(
    run: Run,
    data: OptionalData = None,
    table: OptionalTable = None,
    images: Annotated[int, typer.Option(min=256, help="At most so many validation images.")] = 1000,
    as_json: Json = False,
) -> None:
    """Hold every artifact of a run against what was predicted. Exit status 1 unless every check passed.

    Example: dmask verify runs/a
    """
    with ShownProgress() as progress:
        verification = api.verify(run, data=data, table=table, images=images, progress=progress)
    _show_verification(verification, run, as_json)


def _table_json(table: Any) -> dict[str, Any]:
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
        _print_json(_table_json(read))
    else:
        console.print(latency_table_summary(read))


@space_app.command("show")
def space_show(space: str, as_json: Json = False) -> None:
    """The decisions of a space.

    Example: dmask space show demo
    """
    found = api.load_space(space)
    if as_json:
        _print_json({**found.to_dict(), "digest": found.digest(), "num_children": found.num_children()})
    else:
        console.print(space_table(found))


@space_app.command("count")
def space_count(space: str, as_json: Json = False) -> None:
    """How many children a space has and what they can cost.

    Example: dmask space count demo
    """
    found = api.load_space(space)
    ranges = {name: api.cost_model(name, None).on(found).reachable() for name in ("macs", "params")}
    if as_json:
        _print_json({"num_children": found.num_children(), **{n: list(r) for n, r in ranges.items()}})
        return
    console.print(f"{found.num_children():,} children")
    for name, (low, high) in ranges.items():
        console.print(f"{name} {quantity(low, name)} to {quantity(high, name)}")


def main() -> None:
    """The console script ``dmask``: exit status 0 done, 1 a verification failed, 2 bad input or use."""
    try:
        app()
    except (DmaskError, OSError, ValidationError) as error:
        if os.environ.get("DMASK_DEBUG"):
            raise
        reason = str(error)
        if isinstance(error, ValidationError):
            reason = f"{error.title}: {describe_validation_error(error)}"
        elif isinstance(error, OSError):
            reason += " (what was measured or trained so far is kept)"
        Console(stderr=True).print(f"error: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
