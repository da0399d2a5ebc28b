"""Compares exported models with the predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmask_mobile.api.arguments import AnyData, AnyPath, AnyPaths, Words, as_path, as_paths, as_tuple, as_words
from dmask_mobile.api.budget_checks import budget_checks, check_custom_costs, table_budgets
from dmask_mobile.api.describing import renew_card
from dmask_mobile.api.reporting import write_report_of_run
from dmask_mobile.api.run_data import locks_run, run_of_model
from dmask_mobile.api.verified_images import reference_of
from dmask_mobile.clock import now
from dmask_mobile.cost_names import named_tables, our_package, quantity_names
from dmask_mobile.errors import DmaskError
from dmask_mobile.outputs import check_output
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.accuracy import Split
from dmask_mobile.records.artifact import Artifact, ModelDescription, hash_path
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.verification import BUDGET_TOLERANCE, Check, Verification
from dmask_mobile.run import RunFolder

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel
    from export.verification.isolation import ModelProcess
    from export.verification.latency_verdict import MeasuredLatency, PredictedLatency
    from export.verification.metric_verdict import PredictedMetric
    from export.verification.reference import Reference
    from latency_tables.devices.native_output import Measurement

logger = logging.getLogger(__name__)


MAX_SECONDS = 1e6  # a process cannot wait for much longer


class VerifySettings(NamedTuple):
    """The settings of a verification.

    ``images``: the largest number of images of each split. ``allow_drift``: judge latencies even if the device has
    drifted by more than 10% since its table was made. ``limits``: fields of `export.verification.numerics.Limits` to
    replace. ``bisect``: find the first wrong block. ``measured``: files with latencies measured elsewhere (see
    `latency_tables.devices.native_output.read_measurement`). ``allow_unverified``: quantities that may be 'not
    verified'. ``budget_tolerance``: the share by which a measured latency may exceed its budget. ``time_limit``: the
    seconds that a model may take to open, or to run 16 images.
    """

    images: int = 1000
    allow_drift: bool = False
    limits: Mapping[str, float] = {}
    bisect: bool = False
    measured: AnyPaths = ()
    allow_unverified: Words = ()
    budget_tolerance: float = BUDGET_TOLERANCE
    time_limit: float = 600.0


@locks_run("dmask verify")
def verify(
    target: AnyPaths,
    *,
    run: AnyPath | None = None,
    data: AnyData | None = None,
    tables: AnyPaths = (),
    costs: CostModel | Sequence[CostModel] = (),
    settings: VerifySettings | None = None,
    progress: Progress = silent,
) -> Verification:
    """Compares exported models with what was predicted, and the run's child with every budget of its search.

    >>> verification = dm.verify("runs/a")
    >>> [check.verdict for check in verification.checks if check.quantity == "macs budget"]
    ['passed']

    It writes ``verification.json`` and the page ``report.html`` into the run folder; for files it writes
    ``FILE.verification.json`` next to the first one.

    Args:
        target: a run folder, whose artifacts are all verified, or exported models of one child. The predictions are in
            the metadata of a model.
        run: the run of the models, which has the weights to compare with. It is found automatically if the models are
            still in its ``exports/``. Without a run, numerics are 'not verified'.
        data: the images for the verification; the default is the training data of the child.
        tables: the latency tables; the default is those of the search.
        costs: custom cost models that budgets of the run name; without them, these budgets are 'not verified'.
        settings: limits, images and so on.
        progress: is called after each artifact.

    Raises:
        DmaskError: if there is nothing to verify, or a file is missing or damaged.
    """
    our_package("export")
    from export.verification.isolation import model_process

    settings = settings or VerifySettings()
    _check_settings(settings)
    targets, costs = as_paths(target), as_tuple(costs)
    run = None if run is None else as_path(run)
    whole_run = len(targets) == 1 and (targets[0] / "run.json").exists()
    _check_inputs(targets, whole_run, run, tables, settings)
    report = _report_path(targets, whole_run).resolve()  # a symbolic link stays one
    mark = f'"{Verification.file_format}"'
    check_output(report, mark, "a verification by dmask-mobile", "rename it or move it away")
    report.unlink(missing_ok=True)  # the verdict of the last verification must not remain if this one fails
    with model_process(settings.time_limit) as process:
        if whole_run:
            folder: RunFolder | None = RunFolder(targets[0])
            found = _all_of_run(RunFolder(targets[0]))
        else:
            found, folder = _files(targets, run, process)
        child = folder.child() if folder else found[0][0].child
        if any(artifact.child_digest != child.digest() for artifact, _ in found) and folder is None:
            raise DmaskError("these files contain different children", "verify each child separately")
        checks, split = _checks(found, folder, child, data, tables, costs, settings, process, progress)
    verification = Verification(
        child_digest=child.digest(),
        created=now(),
        checks=checks,
        allow_unverified=as_words(settings.allow_unverified),
        weights_sha256=hash_path(folder.weights_path) if folder else None,
        split=split,
    )
    verification.write(report)
    logger.info("'%s': %s", report, "verified" if verification.passed else "not verified")
    if whole_run:
        write_report_of_run(RunFolder(targets[0]), progress)
        renew_card(RunFolder(targets[0]), progress)
    return verification


def _checks(
    found: Sequence[tuple[Artifact, Path]],
    folder: RunFolder | None,
    child: ChildSpec,
    data: AnyData | None,
    tables: AnyPaths,
    costs: Sequence[CostModel],
    settings: VerifySettings,
    process: ModelProcess,
    progress: Progress,
) -> tuple[tuple[Check, ...], Split | None]:
    """The lines about the run's weights, each artifact and the run's budgets; and the split of the accuracy lines."""
    from export.verification.latency_verdict import LatencyRules
    from export.verification.verify import VerifyOptions, verify_artifact

    record = folder.record() if folder else None
    check_custom_costs(record, costs)
    predictions, metrics = _predictions(folder, child, tables, progress)
    external = _external_measurements(as_paths(settings.measured), [artifact for artifact, _ in found], predictions)
    reference: Reference | str = "no run to compare with; give --run RUN"
    checks: list[Check] = []
    if folder is not None:
        reference, of_weights = reference_of(folder, data, settings.images, progress)
        checks.extend(of_weights)
    rules = LatencyRules(settings.allow_drift, settings.budget_tolerance)
    options = VerifyOptions(settings.limits, settings.bisect, predictions, external, metrics, rules, process.open)
    for number, (artifact, place) in enumerate(found, start=1):
        checks.extend(verify_artifact(artifact, place, reference, options))
        progress("verify", number, len(found), artifact.label)
    if record is not None:
        formats = {artifact.model_format for artifact, _ in found}
        checks.extend(budget_checks(record, child, costs, [*predictions, *metrics], formats, tuple(checks)))
    return tuple(checks), None if isinstance(reference, str) else reference.split


def _check_settings(settings: VerifySettings) -> None:
    if not all(as_words(settings.allow_unverified)):
        raise DmaskError("--allow-unverified needs a quantity, got ''", "for example latency")
    if not 0 < settings.time_limit <= MAX_SECONDS:
        raise DmaskError(
            f"--time-limit must be a number of seconds above 0, got {settings.time_limit:g}", "for example 600"
        )
    if not 0 <= settings.budget_tolerance < 1:
        raise DmaskError(
            f"--budget-tolerance must be a share of at least 0 and below 1, got {settings.budget_tolerance:g}",
            "for example 0.05",
        )


def _check_inputs(
    targets: Sequence[Path], whole_run: bool, run: Path | None, tables: AnyPaths, settings: VerifySettings
) -> None:
    """Checks that the inputs exist, before the verdict of the last verification is removed.

    Raises:
        DmaskError: if there is nothing to verify, or one of the inputs does not exist.
    """
    from export.formats.registry import format_of

    if not targets:
        raise DmaskError("nothing to verify", "give a run folder or exported models")
    for path in () if whole_run else targets:
        if (path / "run.json").exists():
            raise DmaskError(f"'{path}' is a run folder, which is verified by itself", "give only the run folder")
        format_of(path)
    if own := targets[0] if whole_run else run:
        RunFolder(own).record()
        RunFolder(own).child()
    for path in (*named_tables(tables).values(), *as_paths(settings.measured)):
        if not path.exists():
            raise DmaskError(f"no file '{path}'", "check the path")


def _report_path(targets: Sequence[Path], whole_run: bool) -> Path:
    """The path of the verification: in the run folder for a whole run, next to the first file for files."""
    if whole_run:
        return RunFolder(targets[0]).verification_path
    return targets[0].with_name(f"{targets[0].name}.verification.json")


def _all_of_run(folder: RunFolder) -> list[tuple[Artifact, Path]]:
    """The artifacts of the run, and the folder of each.

    Raises:
        DmaskError: if there is none, or a model has no record.
    """
    from export.formats.registry import FORMATS

    artifacts = folder.artifacts()
    if not artifacts:
        raise DmaskError(
            f"'{folder.path}' contains no exported artifact", "export one: dmask export RUN --format onnx,coreml"
        )
    recorded, endings = {artifact.path for artifact in artifacts}, {found.suffix for found in FORMATS.values()}
    for path in sorted(folder.exports.iterdir()):
        if path.suffix in endings and path.name not in recorded:
            raise DmaskError(f"'{path}' has no record of its export", "export it again, or remove it")
    return [(artifact, folder.exports) for artifact in artifacts]


def _files(
    targets: Sequence[Path], run: Path | None, process: ModelProcess
) -> tuple[list[tuple[Artifact, Path]], RunFolder | None]:
    """The artifacts in files with their folders, and the run that they belong to, if there is one."""
    run = run or run_of_model(targets[0])
    folder = RunFolder(run) if run is not None else None
    return [(_artifact_in(path, folder, process), path.parent) for path in targets], folder


def _artifact_in(path: Path, folder: RunFolder | None, process: ModelProcess) -> Artifact:
    """The record of an exported model: from its run if the model is there, otherwise from the model's metadata."""
    from export.formats.registry import FORMATS, format_of
    from export.write import artifact_of

    its_format = format_of(path)
    if folder is not None and path.resolve().parent == folder.exports.resolve():
        for artifact in folder.artifacts():
            if artifact.path == path.name:
                return artifact
    (name,) = (name for name, found in FORMATS.items() if found is its_format)
    return artifact_of(path, ModelDescription.from_metadata(process.open(name, path).metadata(), str(path)))


def _predictions(
    folder: RunFolder | None, child: ChildSpec, tables: AnyPaths, progress: Progress
) -> tuple[tuple[PredictedLatency, ...], tuple[PredictedMetric, ...]]:
    """The predictions of each table for the child, with the budgets of the search for them."""
    named = named_tables(tables) or (folder.tables() if folder else {})
    if not named:
        return (), ()
    our_package("latency_tables")
    from latency_tables.prediction.metrics import METRICS
    from latency_tables.profiling.table_probe import predicted_latency, predicted_metrics, probe_of
    from latency_tables.table.table import LatencyTable

    record, own = (folder.record(), list(folder.tables())) if folder else (None, [])

    def budgets_for(name: str, line: str) -> dict[str, float]:
        return table_budgets(record, name, line, own == [name]) if record else {}

    latencies, metrics = [], []
    for name, line in quantity_names("latency", named).items():
        table = LatencyTable.read(named[name])
        probe = probe_of(table, progress)
        latencies.append(predicted_latency(table, line, child, budgets_for(name, line), probe))
        lines = {metric: quantity_names(metric, named)[name] for metric in METRICS}
        budgets = {metric: budgets_for(name, line) for metric, line in lines.items()}
        metrics += predicted_metrics(table, lines, child, budgets, probe)
    return tuple(latencies), tuple(metrics)


def _external_measurements(
    paths: Sequence[Path], artifacts: Sequence[Artifact], predictions: Sequence[PredictedLatency]
) -> dict[str, MeasuredLatency]:
    """Latencies that were measured elsewhere, by format; each is checked for having a matching prediction."""
    if not paths:
        return {}
    our_package("latency_tables")
    from export.verification.latency_verdict import MeasuredLatency
    from latency_tables.devices.native_output import read_measurement

    external: dict[str, MeasuredLatency] = {}
    for path in paths:
        found = read_measurement(path)
        if found.model_format in external:
            raise DmaskError(f"two measurements of {found.model_format}", "give one --measured FILE for each format")
        check_fits_one(found, artifacts, predictions)
        ran_with = {"runs": found.runs, "threads": found.threads, "delegate": found.delegate}
        said = [f"{key} {value}" for key, value in {**ran_with, "precision": found.precision}.items() if value]
        source = "; ".join([f"measured elsewhere: {found.source}", *said])
        noise = None if found.deviation_ms is None else found.deviation_ms / found.ms
        external[found.model_format] = MeasuredLatency(found.ms, noise, 0.0, source, found.runs)
    return external


def check_fits_one(
    measurement: Measurement, artifacts: Sequence[Artifact], predictions: Sequence[PredictedLatency]
) -> None:
    """Checks that an external measurement belongs to exactly one prediction and has the settings of its table.

    Raises:
        DmaskError: if it matches several predictions (a file does not contain its device), or if threads, delegate or
            precision differ.
    """
    from export.verification.latency_verdict import predictions_for

    fitting = [
        (artifact, prediction)
        for artifact in artifacts
        if artifact.model_format == measurement.model_format
        for prediction in predictions_for(artifact, predictions)
        if prediction.precision == artifact.precision
    ]
    if len(fitting) > 1:
        names = ", ".join(f"{prediction.name} of '{artifact.path}'" for artifact, prediction in fitting)
        raise DmaskError(
            f"the measurement of {measurement.model_format} fits {len(fitting)} predictions: {names}",
            "verify only the file that was measured, with the table of the device on which it was measured:"
            " dmask verify FILE --run RUN --table TABLE --measured MEASUREMENT",
        )
    for _, prediction in fitting:
        threads, precision = prediction.predicted.threads, prediction.precision
        measurement.check_fits(threads=threads, delegate=prediction.delegate, precision=precision)
