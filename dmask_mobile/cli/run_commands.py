"""The commands of the chain that make a run: demo, search, train, test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmask_mobile import api
from dmask_mobile.cli.budgets import parse_budgets
from dmask_mobile.cli.console import console, print_json
from dmask_mobile.cli.deploy_commands import show_verification
from dmask_mobile.cli.json_results import AccuracyFacts, RunAccuracy, Seconds
from dmask_mobile.cli.options import (
    AllowDrift,
    Budgets,
    Changes,
    ChildPrecision,
    Compile,
    Cost,
    Data,
    DryRun,
    Flip,
    Json,
    MachinePrecision,
    Memory,
    OptionalData,
    Previous,
    Restart,
    Run,
    SkipBad,
    Tables,
    TakeEmulated,
    Workers,
    data_options,
)
from dmask_mobile.cli.progress import ShownProgress
from dmask_mobile.cli.recipes import parse_changes
from dmask_mobile.cli.tables import accuracy_summary, estimate_summary, search_summary
from dmask_mobile.records.setting_names import (
    RECIPES,
    Expectation,
    InitialWeights,
    LossName,
    ModelFormat,
    ResolutionMode,
    SearchMethod,
    SearchTeacher,
)

if TYPE_CHECKING:
    from dmask_mobile.records.accuracy import AccuracyRecord
    from dmask_mobile.records.estimate import Estimate


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for the new run folder.")] = Path("runs"),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Run the whole chain on this machine in minutes: profile, search, train, export, verify.

    Example: dmask demo
    """
    with ShownProgress() as progress:
        run = api.demo(output, seed=seed, progress=progress)
    assert run.verification is not None
    show_verification(run.verification, str(run.path), as_json)


def search(
    space: Annotated[str, typer.Argument(help="A shipped space, or a YAML file.")],
    data: Data,
    budget: Budgets,
    output: Annotated[Path, typer.Option("-o", "--output", help="The run folder.")],
    table: Tables = None,
    cost: Cost = None,
    method: Annotated[
        SearchMethod | None,
        typer.Option(
            help="single_path: train one child a step and fit gates to children's losses. dmasking: FBNetV2's soft"
            " gates. sensitivity: measure what each option changes in a given network. Default: single_path;"
            " sensitivity from trained weights."
        ),
    ] = None,
    loss: Annotated[LossName, typer.Option(help="The loss of the gates; only 'budget' reaches the budget.")] = "budget",
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Draw this many children; select the best with supernet weights. Default: 1; 24 if a supernet is"
            " trained and no trials are made.",
        ),
    ] = None,
    rank_precision: Annotated[
        str,
        typer.Option(
            help="fp32, or int8[:FORMAT]: export the five best children and select by their int8 accuracy. FORMAT: onnx"
            " by default."
        ),
    ] = "fp32",
    resolution_mode: Annotated[
        ResolutionMode, typer.Option(help="Run one resolution a step, or all of them in every step.")
    ] = "sampled",
    expectation: Annotated[
        Expectation,
        typer.Option(help="How macs and params enter the loss: exactly, or by the paper's effective shapes."),
    ] = "exact",
    precision: ChildPrecision = None,
    allow_drift: AllowDrift = False,
    emulated: TakeEmulated = False,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of the supernet's weights. Default: 8; 2 of 'sensitivity'."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    warmup: Annotated[
        float | None,
        typer.Option(
            help="The share of the epochs before the gates learn. Default: 0.75; 0.5 from trained weights, 0 of"
            " 'sensitivity'."
        ),
    ] = None,
    weight_learning_rate: Annotated[
        float | None,
        typer.Option(
            help="The initial learning rate of the supernet's weights. Default: 0.1; 0.02 from trained weights."
        ),
    ] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Children that are evaluated with supernet weights.")] = 100,
    trials: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Children that are trained shortly by themselves; the gates learn from them. Default: 8; 0 from"
            " trained weights.",
        ),
    ] = None,
    trial_epochs: Annotated[
        int | None, typer.Option(min=1, help="The epochs of each trial. Default: a quarter of --epochs.")
    ] = None,
    teacher: Annotated[
        SearchTeacher | None,
        typer.Option(
            help="Learn also from the scores of the given network, which needs the classes of the data. Default: none;"
            " original with --method single_path or dmasking from trained weights."
        ),
    ] = None,
    gate_learning_rate: Annotated[float, typer.Option(help="The learning rate of soft gates (dmasking).")] = 0.05,
    flip: Flip = None,
    skip_bad: SkipBad = None,
    memory: Memory = None,
    workers: Workers = None,
    last_temperature: Annotated[
        float, typer.Option(help="The temperature of soft gates (dmasking) in the last epoch.")
    ] = 0.087,
    seed: int = 0,
    restart: Restart = False,
    previous: Previous = False,
    mixed_precision: MachinePrecision = None,
    compiled: Compile = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Search a space within a budget and derive the child. If it is started again, it continues where it stopped.

    Example: dmask search demo --data fashion-mnist --budget latency=0.07ms --table table.jsonl -o runs/a
    """
    from dmask_mobile.search.schedule import Schedule
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.machine import Machine

    budgets = parse_budgets(budget)
    given = {
        "epochs": epochs,
        "warmup": warmup,
        "weight_learning_rate": weight_learning_rate,
        "trials": trials,
        "teacher": teacher,
    }
    settings = SearchSettings(
        **{
            **api.default_settings(api.load_space(space), method).model_dump(),
            **{name: value for name, value in given.items() if value is not None},
            "loss": loss,
            "resolution_mode": resolution_mode,
            "expectation": expectation,
            "batch_size": batch_size,
            "evaluations": evaluations,
            "trial_epochs": trial_epochs,
            "gate_learning_rate": gate_learning_rate,
            "schedule": Schedule(last_temperature=last_temperature),
            "seed": seed,
        }
    )
    costs = [api.load_cost(cost)] if cost else []
    machine, read = Machine(mixed_precision, compiled=compiled), data_options(flip, skip_bad, memory, workers)
    if dry_run:
        with ShownProgress() as progress:
            estimate = api.estimate_search(
                space,
                data,
                budgets,
                tables=table or [],
                costs=costs,
                settings=settings,
                data_options=read,
                machine=machine,
                progress=progress,
            )
        show_estimate(estimate, as_json)
        return
    with ShownProgress() as progress:
        run = api.search(
            space,
            data,
            budgets,
            output,
            tables=table or [],
            costs=costs,
            samples=samples,
            rank_precision=rank_precision,
            allow_drift=allow_drift,
            emulated=emulated,
            precision=precision,
            data_options=read,
            settings=settings,
            restart=restart,
            previous=previous,
            machine=machine,
            progress=progress,
        )
    if as_json:
        print_json(run.search_result.to_dict())
        return
    console.print(f"child in {output / 'child.json'}")
    for line in search_summary(run.search_result, run.budgets):
        console.print(line)


def train(
    run: Run,
    data: OptionalData = None,
    recipe: Annotated[
        str, typer.Option(help=f"How to train: {', '.join(RECIPES)}, or a YAML file; the run stores its settings.")
    ] = "small",
    changes: Changes = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Replaces the recipe's value; may grow later.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of a step; replaces the recipe's value.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Replaces the recipe's value.")] = None,
    qat: Annotated[
        ModelFormat | None,
        typer.Option(help="Compute as in this format's int8 in the last half of the epochs: onnx, litert, executorch."),
    ] = None,
    flip: Flip = None,
    skip_bad: SkipBad = None,
    memory: Memory = None,
    workers: Workers = None,
    init: Annotated[
        InitialWeights, typer.Option(help="Start from random weights or from the child's slice of the supernet.")
    ] = "scratch",
    seed: int = 0,
    restart: Restart = False,
    previous: Previous = False,
    mixed_precision: MachinePrecision = None,
    compiled: Compile = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train the run's child. If it is started again, it continues where it stopped.

    Several processes: torchrun --nproc-per-node 2 --no-python dmask train runs/a, or accelerate launch -m dmask_mobile
    train runs/a.

    Example: dmask train runs/a --recipe photographs --epochs 30
    """
    from dmask_mobile.training.machine import Machine
    from dmask_mobile.training.train import TrainSettings

    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "qat": qat}
    said = {name: value for name, value in given.items() if value is not None}
    settings = TrainSettings.of(recipe, parse_changes(changes or []), **said, init=init, seed=seed)
    read, machine = data_options(flip, skip_bad, memory, workers), Machine(mixed_precision, compiled=compiled)
    if dry_run:
        with ShownProgress() as progress:
            estimate = api.estimate_train(
                run, data=data, settings=settings, data_options=read, machine=machine, progress=progress
            )
        show_estimate(estimate, as_json)
        return
    with ShownProgress() as progress:
        accuracy = api.train(
            run,
            data=data,
            settings=settings,
            restart=restart,
            previous=previous,
            data_options=read,
            machine=machine,
            progress=progress,
        )
    if as_json:
        print_json(RunAccuracy(run=str(run), accuracy=accuracy))
    else:
        console.print(f"accuracy {accuracy:.2%} on the validation images")


def show_estimate(estimate: Estimate, as_json: bool) -> None:
    """Prints the result of a dry run."""
    if as_json:
        print_json({**Seconds(seconds=estimate.seconds), **estimate.model_dump()})
        return
    for line in estimate_summary(estimate):
        console.print(line)


def open_test_split(run: Run, as_json: Json = False) -> None:
    """Measure the accuracy of the trained child on the test split.

    The result is stored in test.json, and the same weights are never tested twice. If the data has no test split, the
    validation images are used, and the result says so.

    Example: dmask test runs/a
    """
    with ShownProgress() as progress:
        found = api.measure_accuracy(run, progress=progress)
    if as_json:
        print_json(accuracy_json(found))
        return
    for line in accuracy_summary(found):
        console.print(line)
    console.print(f"confusion matrix in {run / 'test.json'}, and in test_confusion.csv, .png and .svg next to it")


def accuracy_json(found: AccuracyRecord) -> dict[str, Any]:
    """The result of a test, with its figures for each class."""
    facts = AccuracyFacts(num_images=found.num_images, class_accuracies=list(found.class_accuracies()))
    return {**found.to_dict(), **facts}
