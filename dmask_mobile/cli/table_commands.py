"""``dmask profile`` and ``dmask table``."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from dmask_mobile import api
from dmask_mobile.cli.console import console, fits, print_json, tell
from dmask_mobile.cli.json_results import (
    ImportedTable,
    MetricFacts,
    ProfileFacts,
    TableChange,
    TableChanges,
    TableFacts,
    WrittenPicture,
)
from dmask_mobile.cli.options import (
    Cores,
    Delegate,
    Devices,
    Emulated,
    Json,
    Python,
    Runner,
    RunnerFlags,
    RuntimeName,
    TablePrecision,
    TargetError,
    Where,
    parse_cores,
)
from dmask_mobile.cli.progress import ShownProgress
from dmask_mobile.cli.tables import (
    corrections_of,
    device_now,
    evaluation_table,
    heat_map,
    latency_table_summary,
    metric_error,
)
from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.quantities import TABLE_UNITS
from dmask_mobile.records.setting_names import Precision

if TYPE_CHECKING:
    from dmask_mobile.records.block import Activation
    from dmask_mobile.records.space import SearchSpace
    from latency_tables.devices.options import DeviceOptions
    from latency_tables.table.table import LatencyTable

MAX_FINDINGS = 50  # findings of an import that are printed

table_app = typer.Typer(no_args_is_help=True, help="Latency tables.")
TableFile = Annotated[Path, typer.Argument(help="A latency table.")]
NewTable = Annotated[Path, typer.Option("-o", "--output", help="The table to write.")]

DEFAULT_MINUTES, LIKE_MINUTES = 6.0, 1.0


def profile(
    space: Annotated[str | None, typer.Argument(help="A shipped space, or a YAML file.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", "--table", help="The table to write or to continue.")
    ] = None,
    missing: Annotated[
        Path | None, typer.Option(help="Measure only what this child.json needs and a table lacks.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Classes of the head, if not the space's own.")] = None,
    device: Devices = None,
    runtime: RuntimeName = "onnxruntime",
    precision: TablePrecision = "fp32",
    delegate: Delegate = "cpu",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    cores: Cores = "",
    python: Python = "",
    runner: Runner = "",
    runner_flag: RunnerFlags = None,
    emulated: Emulated = False,
    like: Annotated[
        Path | None,
        typer.Option(help="A table of another device or runtime that predictions begin with; a minute is then enough."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=10_080, help="Measure at most for this time, over all runs for a table: 6, with --like 1."
        ),
    ] = None,
    target_error: TargetError = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, help="How often each block is measured, at different times.")
    ] = 3,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Try again to measure what failed in earlier runs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure blocks and whole networks of a space on a device and write a latency table.

    If it is started again, it continues where it stopped.

    Example: dmask profile demo --classes 10 -o table.jsonl

    A phone: dmask profile demo --device adb --runtime litert --runner ./benchmark_model -o phone.jsonl

    Another runtime, in a minute: dmask profile demo --runtime ncnn --like table.jsonl -o ncnn.jsonl

    A board: dmask profile demo --device ssh:pi@raspberry --python venv/bin/python -o board.jsonl
    """
    from latency_tables.devices.options import DeviceOptions
    from latency_tables.profiling.settings import ProfileSettings

    if output is None or (space is None) == (missing is None):
        raise DmaskError(
            "a profile needs a table, and a space or --missing child.json",
            "for example: dmask profile demo -o table.jsonl",
        )
    settings = ProfileSettings(
        minutes=minutes or (LIKE_MINUTES if like else DEFAULT_MINUTES),
        target_error=parse_share(target_error) if target_error is not None else None,
        rounds=rounds,
        retry_failures=retry_failures,
    )
    options = DeviceOptions(
        python=python,
        runner=str(Path(runner).absolute()) if runner else "",
        runner_flags=tuple(runner_flag or ()),
        cores=parse_cores(cores),
        emulated=emulated,
    )
    found = None if space is None else load_space(space, classes)
    with ShownProgress() as progress:
        if found is not None:
            table = api.profile(
                found,
                output,
                devices=[reached_at(at, options) for at in device or ["local"]],
                runtime=runtime,
                threads=threads,
                precision=precision,
                delegate=delegate,
                settings=settings,
                like=like,
                progress=progress,
            )
        else:
            from dmask_mobile.records.child import ChildSpec

            assert missing is not None
            check_no_others((runtime, threads, precision, delegate), options, device or [])
            if (classes, minutes, target_error, like) != (None,) * 4:
                raise DmaskError(
                    "--missing measures all blocks that the child needs",
                    "leave out --classes, --minutes, --target-error, --like",
                )
            at = device[0] if device else None
            table = api.profile_missing(ChildSpec.read(missing), output, at=at, settings=settings, progress=progress)
    show_table(table, found, as_json)


def check_no_others(how: tuple[str, int, Precision, str], options: DeviceOptions, devices: list[str]) -> None:
    """Checks that no option was given with ``--missing`` whose value comes from the table.

    Raises:
        DmaskError: if one was given.
    """
    if how != ("onnxruntime", 1, "fp32", "cpu") or options != type(options)() or len(devices) > 1:
        raise DmaskError("--missing uses the settings of the table", "give no options other than --table and --device")


def show_table(table: LatencyTable, space: SearchSpace | None, as_json: bool) -> None:
    """Prints what was measured and how well; for a table made for a space, also what the table lacks for it."""
    from latency_tables.profiling.profile import describe_failures, stability, what_is_missing

    missing = None if space is None else what_is_missing(table, space)
    if as_json:
        print_json({**table.head.to_dict(), **ProfileFacts(**table_facts(table), incomplete=missing)})
        return
    console.print(latency_table_summary(table))
    for line in (*describe_failures(table), *filter(None, [stability(table), missing])):
        console.print(line, style="yellow", soft_wrap=True)


def load_space(name: str, classes: int | None) -> SearchSpace:
    """The space, with ``classes`` classes if that is given."""
    space = api.load_space(name)
    return space if classes is None else space.with_classes(classes)


def reached_at(at: str, options: DeviceOptions) -> DeviceOptions:
    """The options of one device; the path of its Python is made absolute only if the device is this machine."""
    python = found_again(options.python) if at == "local" else options.python
    return options.model_copy(update={"at": at, "python": python})


def found_again(command: str) -> str:
    """The command with an absolute path of its program, because it is stored and run from other folders.

    >>> found_again("python3 -B")
    'python3 -B'
    """
    program, *rest = shlex.split(command) or [""]
    return shlex.join([str(Path(program).absolute()), *rest]) if "/" in program else command


def parse_share(text: str) -> float:
    """``3%`` or ``0.03``.

    Raises:
        DmaskError: if it is not a number between 0 and 1.

    >>> parse_share("3%")
    0.03
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise DmaskError(f"a share must be a number between 0 and 1 or a percentage, got '{text}'", "for example 3%")
    return share


def table_facts(table: LatencyTable) -> TableFacts:
    """The coverage and the quality of a table."""
    from latency_tables.prediction.metrics import METRICS
    from latency_tables.table.rows import describe_subject

    corrections = corrections_of(table)
    fitted = None if isinstance(corrections, DmaskError) else corrections

    def known(value: float | None) -> float | None:
        """None for infinity, which stands for an unknown error; JSON has no infinity."""
        return value if value is not None and math.isfinite(value) else None

    return TableFacts(
        num_blocks=len(table.blocks),
        num_networks=len(table.networks),
        relative_spread=known(fitted and fitted.spread),
        noise=table.noise(),
        disturbed_share=table.disturbed_share,
        error=known(fitted and fitted.error),
        quantile=table.quantile,
        device_scale=table.scale,
        failures=[f"{describe_subject(subject)}: {reason}" for subject, reason in table.failures.items()],
        metrics={metric: metric_facts(table, metric) for metric in METRICS},
    )


def metric_facts(table: LatencyTable, metric: str) -> MetricFacts:
    """What a table holds of a metric beside latency."""
    from latency_tables.prediction.metrics import MetricModel, what_is_lacking

    lacking = what_is_lacking(table, metric)
    return MetricFacts(
        unit=TABLE_UNITS[metric],
        num_networks=len(table.metrics.get(metric, {})),
        error=None if lacking else metric_error(MetricModel(table, metric)),
        not_available=table.not_reported.get(metric),
    )


def table_json(table: LatencyTable) -> dict[str, Any]:
    """The head, the coverage and the quality of a table."""
    return {**table.head.to_dict(), **table_facts(table)}


@table_app.command("show")
def table_show(table: Annotated[Path, typer.Argument(help="A latency table.")], as_json: Json = False) -> None:
    """Show the device of a table, what it covers and how accurate it is.

    Example: dmask table show table.jsonl
    """
    from latency_tables.table.table import LatencyTable

    read = LatencyTable.read(table)
    if as_json:
        print_json(table_json(read))
    else:
        console.print(latency_table_summary(read))
        if any(block.kind == "inverted_residual" for block, _ in read.blocks):
            widths = heat_map(read)
            console.print(widths if fits(widths) else "'dmask table plot' draws which widths were measured")


@table_app.command("check")
def table_check(table: TableFile, device: Where = None, as_json: Json = False) -> None:
    """Measure a table's sentinel networks now; from then on it predicts for the device as it is now.

    Example: dmask table check table.jsonl
    """
    with ShownProgress() as progress:
        checked = api.check_device(table, at=device, progress=progress)
    if as_json:
        print_json(table_json(checked))
    else:
        console.print(f"{table}: the device now: {device_now(checked.scale - 1)}", soft_wrap=True, markup=False)


@table_app.command("evaluate")
def table_evaluate(
    table: TableFile,
    space: Annotated[str, typer.Option(help="The space whose children to measure.")],
    classes: Annotated[int | None, typer.Option(help="Classes of the head, if not the space's own.")] = None,
    children: Annotated[int, typer.Option(min=2)] = 100,
    device: Where = None,
    seed: int = 0,
    plot: Annotated[Path | None, typer.Option(help="Draw predicted against measured: FILE.png or FILE.svg.")] = None,
    as_json: Json = False,
) -> None:
    """Measure children that are not in a table, on its device, and show how well it predicts them.

    Example: dmask table evaluate table.jsonl --space demo --children 100
    """
    if plot is not None:
        from dmask_mobile.pictures import check_picture
        from latency_tables.profiling.plots import plot_evaluation

        check_picture(plot)  # checked before minutes of measuring
    found = load_space(space, classes)
    with ShownProgress() as progress:
        evaluation = api.evaluate_table(table, found, children=children, seed=seed, at=device, progress=progress)
    if plot is not None:
        plot_evaluation(evaluation, plot)
    if as_json:
        print_json(evaluation.model_dump(mode="json", exclude={"children"}))
    else:
        console.print(evaluation_table(evaluation))


@table_app.command("plot")
def table_plot(
    table: TableFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="FILE.png or FILE.svg")],
    as_json: Json = False,
) -> None:
    """Draw what a table covers, and predictions against measurements of its whole networks.

    Example: dmask table plot table.jsonl -o table.png
    """
    from latency_tables.profiling.plots import plot_table
    from latency_tables.table.table import LatencyTable

    plot_table(LatencyTable.read(table), output)
    if as_json:
        print_json(WrittenPicture(picture=str(output)))
    else:
        console.print(str(output), soft_wrap=True)


@table_app.command("merge")
def table_merge(
    tables: Annotated[list[Path], typer.Argument(help="Tables of one device.")],
    output: NewTable,
    as_json: Json = False,
) -> None:
    """Merge tables of the same device, runtime and settings.

    Example: dmask table merge a.jsonl b.jsonl -o both.jsonl
    """
    from latency_tables.table.compare import merge
    from latency_tables.table.table import LatencyTable

    merged = merge([LatencyTable.read(path) for path in tables], output)
    if as_json:
        print_json(table_json(merged))
    else:
        console.print(latency_table_summary(merged))


@table_app.command("diff")
def table_diff(first: TableFile, second: TableFile, as_json: Json = False) -> None:
    """Show what changed between two tables of the same device, runtime and settings.

    Example: dmask table diff before.jsonl after.jsonl
    """
    from latency_tables.table.compare import diff
    from latency_tables.table.table import LatencyTable

    found = diff(LatencyTable.read(first), LatencyTable.read(second))
    if as_json:
        changes = [
            TableChange(subject=d.subject, first_ms=d.first_ms, second_ms=d.second_ms, change=d.change)
            for d in found.common
        ]
        print_json(
            TableChanges(
                median_change=found.median_change,
                common=changes,
                only_first=found.only_first,
                only_second=found.only_second,
            )
        )
        return
    console.print(
        f"{len(found.common)} in both, {found.only_first} only in the first, {found.only_second} only in the second;"
        f" the median changed by {found.median_change:+.1%}"
    )
    for difference in found.common[:10]:
        console.print(
            f"{difference.change:+7.1%}  {difference.first_ms:.4f} -> {difference.second_ms:.4f} ms"
            f"  {difference.subject}"
        )


@table_app.command("import")
def table_import(
    source: Annotated[Path, typer.Argument(help="A table of another project.")],
    file_format: Annotated[str, typer.Option("--format", help="proxylessnas, once-for-all or mobile-vision")],
    device: Annotated[str, typer.Option(help="The device that it was measured on.")],
    runtime: Annotated[str, typer.Option(help="The runtime that it was measured with.")],
    output: NewTable,
    activation: Annotated[
        str, typer.Option(help="relu or hswish: the activation of convolutions for which the file has none.")
    ] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out wrong entries instead of refusing.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Convert a table of ProxylessNAS, Once-for-All or mobile-vision; every entry is checked.

    Example: dmask table import pixel1.yaml --format proxylessnas --device "Pixel 1" --runtime tflite -o pixel1.jsonl
    """
    from latency_tables.table.importers import read_foreign
    from latency_tables.table.rows import TableHead
    from latency_tables.table.writer import check_new, write_new_table

    check_new(output)
    imported = read_foreign(source, file_format, parse_activation(activation))
    findings = list(imported.findings[:MAX_FINDINGS])
    if len(imported.findings) > MAX_FINDINGS:
        findings.append(f"and {len(imported.findings) - MAX_FINDINGS:,} more")
    for finding in findings:
        if as_json:  # standard output contains only JSON
            tell(finding, style="yellow")
        else:
            console.print(finding, style="yellow", soft_wrap=True)
    if imported.findings and not skip_bad:
        raise DmaskError(
            f"'{source}' has {len(imported.findings)} entries that are wrong or are not known blocks",
            "correct them, or leave them out with --skip-bad",
        )
    head = TableHead(
        device=device, system="imported", cores=1, runtime=runtime, runtime_version=f"of {source.name}",
        precision=imported.precision, threads=threads, created=now(),
    )  # fmt: skip
    write_new_table(output, head, imported.rows)
    if as_json:
        print_json(ImportedTable(table=str(output), num_blocks=len(imported.rows), findings=list(imported.findings)))
    else:
        console.print(f"{len(imported.rows)} blocks in {output}", soft_wrap=True)


def parse_activation(text: str) -> Activation | None:
    """The activation of this name; None for no text.

    Raises:
        DmaskError: if there is none with this name.
    """
    from dmask_mobile.records.block import Activation

    known: dict[str, Activation] = {name: name for name in get_args(Activation)}
    if text and text not in known:
        raise DmaskError(f"no activation '{text}'", f"choose one of {', '.join(known)}")
    return known.get(text)
