"""``dmask export`` and ``dmask verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dmask_mobile import api
from dmask_mobile.cli.console import console, note, print_json
from dmask_mobile.cli.json_results import Outcome
from dmask_mobile.cli.options import AllowDrift, Full, Json, OptionalData, Tables
from dmask_mobile.cli.progress import ShownProgress
from dmask_mobile.cli.verification_table import verification_view
from dmask_mobile.errors import DmaskError
from dmask_mobile.quantities import quantity
from dmask_mobile.records.setting_names import Layout

if TYPE_CHECKING:
    from dmask_mobile.records.verification import Verification

RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}
RangeName = Literal["0..1", "0..255"]


def export(
    source: Annotated[str, typer.Argument(metavar="RUN|NAME|CHILD.JSON", help="What to export.")],
    formats: Annotated[
        str, typer.Option("--format", help="Comma-separated: onnx, coreml, litert, executorch, ncnn")
    ] = "onnx,coreml",
    precision: Annotated[
        str, typer.Option(help="Comma-separated: fp32, fp16, int8 (calibrated on training images)")
    ] = "fp32",
    layout: Annotated[Layout, typer.Option(help="The layout of the input.")] = "NCHW",
    input_range: Annotated[RangeName, typer.Option(help="The range of the input's pixels.")] = "0..1",
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add a softmax to the model.")] = False,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Allow any batch size instead of 1.")] = False,
    license_: Annotated[str, typer.Option("--license", help="Goes into the model's metadata.")] = "",
    author: Annotated[str, typer.Option(help="Goes into the model's metadata.")] = "",
    sample: Annotated[
        list[str] | None,
        typer.Option(help="Also write a source file that classifies one image: android or ios; may be repeated."),
    ] = None,
    data: OptionalData = None,
    table: Tables = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run folder that is created for a NAME or a child.json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a run's child, a published network by name, or the child in a JSON file (both with random weights).

    Example: dmask export runs/a --format onnx,coreml,litert --precision fp32,int8
    """
    settings = api.ExportSettings(
        layout=layout,
        input_range=RANGES[input_range],
        output="probabilities" if probabilities else "logits",
        dynamic_batch=dynamic_batch,
        license=license_,
        author=author,
        samples=sample or (),
    )
    names, precisions = _words(formats), _words(precision)
    for skipped in api.skipped_exports(names, precisions):
        note(f"skipped: {skipped}")
    run = _run_of(source, output)
    with ShownProgress() as progress:
        artifacts = api.export(
            run, names, precisions, data=data, tables=table or [], settings=settings, progress=progress
        )
    if as_json:
        print_json([artifact.to_dict() for artifact in artifacts])
        return
    for artifact in artifacts:
        size = quantity(artifact.size_bytes, "bytes")
        console.print(
            f"{artifact.label}: {run / 'exports' / artifact.path}, {size}, {artifact.convert_seconds:.1f} s to convert"
        )
    for platform in sample or ():
        console.print(f"{platform} sample in {run / 'exports'}")


def verify(
    target: Annotated[
        list[Path], typer.Argument(metavar="RUN|FILE...", help="A run folder, or exported models of one child.")
    ],
    run: Annotated[Path | None, typer.Option(help="The run of the files, which has the weights.")] = None,
    data: OptionalData = None,
    table: Tables = None,
    images: Annotated[int, typer.Option(min=256, help="The largest number of images of each split.")] = 1000,
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, for example max_error=0.01; may be repeated.")
    ] = None,
    bisect: Annotated[bool, typer.Option("--bisect", help="If numerics fail, find the first wrong block.")] = False,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="A latency measured elsewhere: the output of a benchmark program, or a record of dmask."),
    ] = None,
    allow_unverified: Annotated[
        list[str] | None, typer.Option(help="A quantity that may be 'not verified', for example latency.")
    ] = None,
    cost: Annotated[
        list[str] | None, typer.Option(help="A custom cost that a budget names: module:Class; may be repeated.")
    ] = None,
    budget_tolerance: Annotated[
        float, typer.Option(help="The share by which a measured latency may exceed its budget.")
    ] = 0.05,
    time_limit: Annotated[
        float, typer.Option(help="Seconds that a model may take to open, or to run 16 images.")
    ] = 600.0,
    allow_drift: AllowDrift = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the result as Markdown, for a pull request.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the result as JUnit XML, for CI.")] = None,
    full: Full = False,
    as_json: Json = False,
) -> None:
    """Compare exported models with the predictions, and the child with its budgets.

    The exit status is 1 unless every check passed.

    Example: dmask verify runs/a

    A file: dmask verify model.tflite --run runs/a --measured benchmark_model.txt
    """
    from dmask_mobile.cli.reports import check_reports, to_junit, to_markdown
    from dmask_mobile.outputs import write_output

    check_reports(markdown, junit)  # before minutes of verifying
    settings = api.VerifySettings(
        images=images,
        allow_drift=allow_drift,
        limits=dict(_parse_limit(text) for text in limit or []),
        bisect=bisect,
        measured=measured or [],
        allow_unverified=allow_unverified or [],
        budget_tolerance=budget_tolerance,
        time_limit=time_limit,
    )
    costs = [api.load_cost(path) for path in cost or []]
    with ShownProgress() as progress:
        verification = api.verify(
            target, run=run, data=data, tables=table or [], costs=costs, settings=settings, progress=progress
        )
    for path, write in ((markdown, to_markdown), (junit, to_junit)):
        if path is not None:
            write_output(path, write(verification))
    show_verification(verification, ", ".join(map(str, target)), as_json, full=full)


def show_verification(verification: Verification, source: str, as_json: bool, *, full: bool = False) -> None:
    """Prints the important checks, or with ``full`` all of them, and ends with exit status 1 unless they passed.

    Raises:
        Exit: status 1.
    """
    if as_json:
        print_json({**verification.to_dict(), **Outcome(passed=verification.passed, source=source)})
    else:
        for part in verification_view(verification, f"child {verification.child_digest} in {source}", full=full):
            console.print(part, highlight=False)
        console.print("verified" if verification.passed else "NOT verified: see the verdicts above")
    if not verification.passed:
        raise typer.Exit(1)


def _run_of(source: str, output: Path | None) -> Path:
    """The run folder for the argument of ``dmask export``; for a name or a child file, it is created first."""
    from dmask_mobile.records.child import ChildSpec

    path = Path(source)
    if path.is_dir():
        return path
    if path.suffix == ".json" or path.is_file():
        child = ChildSpec.read(path)
    else:
        from dmask_mobile.nets.named import named_child, named_children

        if source not in named_children():
            raise DmaskError(
                f"'{source}' is not a run folder, a child.json or the name of a network",
                f"the names are {', '.join(named_children())}",
            )
        child = named_child(source)
    run = output or Path("runs") / child.name
    api.start_run(child, run)
    note(f"{child.name}: random weights (seed 0), run folder {run}")
    return run


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _parse_limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise DmaskError(
            f"a limit must be NAME=VALUE with a number, got '{text}'", "for example max_error=0.01"
        ) from None
