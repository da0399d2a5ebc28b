"""Verification: compares each prediction about an artifact with the measured value, within an allowed difference."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.records.artifact import (
    Artifact,
    ModelFormat,
    Precision,
    hash_path,
    size_of_path,
)
from dmask_mobile.records.verification import Check, Verdict, judge, line_of
from export.deployable import Deployable
from export.formats.coreml.reader import CoreMLModel
from export.formats.protocols import ExportedModel
from export.formats.registry import format_named
from export.golden import FOLDER as GOLDEN_FOLDER
from export.golden import check_golden
from export.verification.bisect import first_bad_block
from export.verification.counts import count_fvcore
from export.verification.identity import OTHER_FILE, check_identity
from export.verification.isolation import IsolatedModel, UnresponsiveError
from export.verification.latency_verdict import (
    DEFAULT_RULES,
    LatencyRules,
    MeasuredLatency,
    PredictedLatency,
    judge_latencies,
)
from export.verification.metric_verdict import PredictedMetric, judge_metrics
from export.verification.numerics import COSINE_QUANTILE, Limits, Numerics, compare, limits_of
from export.verification.reference import IMAGES_OF, Reference

MIN_IMAGES = 256
BATCH = 16
"""Images in one batch; a network for 224 px has several MB of activations for each image and layer."""
MIN_ERROR: dict[Precision, float] = {"fp16": 2e-5, "int8": 3e-3}
"""Of the outputs' range. In every format, errors of fp32 are below 1.4e-5, of fp16 above 3e-4, of int8 above 0.01."""
SIZE_SHARE = 0.05
SIZE_EXTRA_BYTES: dict[Precision, int] = {"fp32": 65_536, "fp16": 65_536, "int8": 196_608}
"""Bytes for the description of the graph and for metadata; int8 includes the scales of every tensor."""

Outputs = dict[str, Tensor]


def open_here(model_format: ModelFormat, path: Path) -> ExportedModel:
    """The model at ``path``, opened in this process."""
    return format_named(model_format).open(path)


class VerifyOptions(NamedTuple):
    """The options of a verification.

    ``limits``: limits (`export.verification.numerics.Limits`) that replace those of the precision. ``bisect``: find the
    first wrong block if numerics fail. ``predictions`` and ``external``: see `judge_latencies`; ``metrics``: see
    `judge_metrics`. ``open_model``: opens a file in this or another process (see `export.verification.isolation`).
    """

    limits: Mapping[str, float] = {}
    bisect: bool = False
    predictions: Sequence[PredictedLatency] = ()
    external: Mapping[str, MeasuredLatency] = {}
    metrics: Sequence[PredictedMetric] = ()
    latency_rules: LatencyRules = DEFAULT_RULES
    open_model: Callable[[ModelFormat, Path], ExportedModel] = open_here


def verify_artifact(
    artifact: Artifact, folder: Path, reference: Reference | str, options: VerifyOptions | None = None
) -> Iterator[Check]:
    """All checks of one artifact.

    Args:
        artifact: its record.
        folder: the folder of its file.
        reference: the reference to compare with, or the reason why there is none.
        options: limits, latencies and so on.

    Raises:
        DmaskError: if the file is missing or cannot be loaded, or for fewer than 256 images.
    """
    options = options or VerifyOptions()
    path = folder / artifact.path
    if not path.exists():
        raise DmaskError(f"artifact '{path}' is missing", "export it again: dmask export RUN --format ...")
    if not isinstance(reference, str) and len(reference.images) < MIN_IMAGES:
        raise DmaskError(
            f"{len(reference.images)} validation images; at least {MIN_IMAGES} are needed", "give other --data"
        )
    found = format_named(artifact.model_format)
    other_file = hash_path(path) != artifact.sha256
    if other_file and found.crashes_on_damage:
        note = f"{OTHER_FILE}; not opened: {artifact.model_format}'s runtime can crash on a damaged file"
        yield line_of(artifact.label, "identity", "faults", 0, 1, "0", "failed", note)
        return
    try:
        model = options.open_model(artifact.model_format, path)
        yield check_identity(artifact, path, model, reference, other_file)
        yield from _numerics(artifact, model, reference, options)
        yield from _golden(artifact, model, folder)
        yield from _counts(artifact, model)
        yield _strays(artifact, model)
    except UnresponsiveError as error:  # it is not sent to a device either
        yield line_of(artifact.label, "answers", "", None, None, "-", "failed", str(error))
        return
    yield _size(artifact, path)
    yield from judge_latencies(artifact, path, options.predictions, options.external, options.latency_rules)
    yield from judge_metrics(artifact, path, options.metrics, options.latency_rules.budget_tolerance)


def _numerics(
    artifact: Artifact, model: ExportedModel, reference: Reference | str, options: VerifyOptions
) -> Iterator[Check]:
    """The artifact's outputs for the validation images compared with PyTorch; on a Mac also those of Core ML itself."""
    if isinstance(reference, str):
        yield line_of(artifact.label, "numerics", "", None, None, "-", "not verified", reference)
        return
    plain = Deployable(reference.network, artifact.preprocessing, artifact.output)
    images = plain.as_input(reference.images)
    held_out = None if reference.test is None else plain.as_input(reference.test.images)
    limits = limits_of(artifact.precision, options.limits)
    try:
        computed = [("", _outputs(lambda part: _in_batches(model.run, part), images, held_out))]
        if sys.platform == "darwin" and isinstance(model, CoreMLModel | IsolatedModel):
            computed.append((" (Core ML)", _outputs(model.predict, images, held_out)))
    except UnresponsiveError:
        raise
    except Exception as error:  # runtimes have their own exceptions, for example for images of another size
        reason = f"it does not run with images of {tuple(images.shape[1:])}: {' '.join(str(error).split())[:300]}"
        yield line_of(artifact.label, "outputs", "", 1, None, "0", "failed", reason)
        return
    failing: dict[str, Tensor] | None = None
    for source, (outputs, of_test) in computed:
        if outputs is None:
            continue
        for check in _compared(artifact, outputs, of_test, reference, limits):
            failing = outputs if check.verdict == "failed" else failing
            yield check.model_copy(update={"quantity": check.quantity + source})
    if options.bisect and failing is not None:
        worst = _worst_image(failing, reference.scores(artifact.output))
        sentence = first_bad_block(model, plain, images[worst : worst + 1], limits.max_error)
        yield line_of(artifact.label, "first bad block", "", None, None, f"{limits.max_error:g}", "failed", sentence)


def _in_batches(run: Callable[[Tensor], dict[str, Tensor]], images: Tensor) -> dict[str, Tensor]:
    """The outputs for all images, computed in small batches so that feature maps need little memory."""
    parts = [run(part) for part in torch.split(images, BATCH)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _worst_image(outputs: dict[str, Tensor], scores_NK: Tensor) -> int:
    """The image with the largest error; the first image if outputs cannot be compared."""
    found = list(outputs.values())
    if len(found) != 1 or found[0].shape != scores_NK.shape:
        return 0
    return compare(scores_NK, found[0], None).worst_image


def _outputs(
    run: Callable[[Tensor], Outputs | None], images: Tensor, held_out: Tensor | None
) -> tuple[Outputs | None, Outputs | None]:
    """The outputs for the images, and for the images of the test split if there is one."""
    return run(images), None if held_out is None else run(held_out)


def _compared(
    artifact: Artifact, outputs: Outputs, of_test: Outputs | None, reference: Reference, limits: Limits
) -> Iterator[Check]:
    if len(outputs) != 1:
        note = f"the network has one output, but the artifact has {len(outputs)}: {', '.join(outputs) or 'none'}"
        yield line_of(artifact.label, "outputs", "", 1, len(outputs), "0", "failed", note)
        return
    (scores,) = outputs.values()
    if scores.shape != reference.scores(artifact.output).shape:
        note = f"outputs must have the shape {tuple(reference.logits.shape[1:])}, found {tuple(scores.shape[1:])}"
        yield line_of(artifact.label, "outputs", "", 1, 1, "0", "failed", note)
        return
    found = compare(reference.scores(artifact.output), scores, reference.labels)
    note = f"{len(reference.images)} images"

    def line(
        quantity: str, unit: str, predicted: float | None, measured: float, allowed: str, kept: bool, note: str = note
    ) -> Check:
        finite = measured if math.isfinite(measured) else None
        return line_of(artifact.label, quantity, unit, predicted, finite, allowed, "passed" if kept else "failed", note)

    def at_most(quantity: str, measured: float, limit: float) -> Check:
        return line(quantity, "of range", 0.0, measured, f"{limit:g}", measured <= limit)

    def at_least(quantity: str, unit: str, predicted: float | None, measured: float, limit: float) -> Check:
        return line(quantity, unit, predicted, measured, f"at least {limit:g}", measured >= limit)

    yield at_most("max error", found.max_error, limits.max_error)
    yield at_most("mean error", found.mean_error, limits.mean_error)
    if artifact.precision != "fp32":  # otherwise a converter that does nothing would pass as a quantizer
        least = MIN_ERROR[artifact.precision]
        shows = found.max_error >= least
        reason = note if shows else f"as close to PyTorch as a higher precision, so it is not {artifact.precision}"
        yield line("precision shows", "of range", None, found.max_error, f"at least {least:g}", shows, reason)
    low = f"{COSINE_QUANTILE:.0%} of {note} are lower"
    kept = found.cosine >= limits.min_cosine
    yield line("cosine", "", 1.0, found.cosine, f"at least {limits.min_cosine:g}", kept, low)
    yield at_least("SNR", "dB", None, found.snr_db, limits.min_snr_db)
    yield at_least("top-1 agreement", "share", 1.0, found.top1_agreement, limits.min_top1_agreement)
    if reference.test is not None and of_test is not None:
        (scores,) = of_test.values()
        found = compare(reference.test_scores(artifact.output), scores, reference.test.labels)
    yield _accuracy(artifact, found, reference, limits)


def _accuracy(artifact: Artifact, found: Numerics, reference: Reference, limits: Limits) -> Check:
    """The line about the artifact's accuracy; it names the split."""
    limit, split = limits.max_accuracy_drop, reference.split
    if found.accuracy is None or found.reference_accuracy is None or split is None:
        note = "the images have no labels"
        return line_of(artifact.label, "accuracy", "share", None, None, f"{limit:g}", "not predicted", note)
    count, total = len(reference.images), ""
    if reference.test is not None:
        count, total = len(reference.test.labels), f" of {reference.test.population}"
    if count < MIN_IMAGES:  # of few test images, one may differ, as for 256 images
        limit = max(limit, 1 / count)
    verdict = judge(found.reference_accuracy, found.accuracy, limit)
    return line_of(
        artifact.label,
        f"accuracy ({split})",
        "share",
        found.reference_accuracy,
        found.accuracy,
        f"{limit:g}",
        verdict,
        f"{count}{total} {IMAGES_OF[split]}",
    )


def _golden(artifact: Artifact, model: ExportedModel, folder: Path) -> Iterator[Check]:
    """The line about the golden pair for tests of apps; none if the folder has no golden pairs."""
    if not (folder / GOLDEN_FOLDER).is_dir():
        return
    found = check_golden(artifact, model, folder)
    error = found.error if found.error is not None and math.isfinite(found.error) else None
    kept = not found.problem and error is not None and error <= found.allowed
    verdict: Verdict = "passed" if kept else "failed"
    yield line_of(artifact.label, "golden pair", "", 0, error, f"{found.allowed:.2g}", verdict, found.problem)


def _counts(artifact: Artifact, model: ExportedModel) -> Iterator[Check]:
    child = artifact.child
    of_graph, of_fvcore = model.counts(), count_fvcore(build(child), child.input_shape)
    for number, predicted in enumerate((Macs().estimate(child), Params().estimate(child))):
        for source, counts in (("graph", of_graph), ("fvcore", of_fvcore)):
            measured = None if counts is None else counts[number]
            note = f"{artifact.model_format} hides its graph" if counts is None else ""
            yield line_of(
                artifact.label,
                f"{predicted.cost} ({source})",
                predicted.unit,
                predicted.value,
                measured,
                "0",
                judge(predicted.value, measured, 0),
                note,
            )


def _strays(artifact: Artifact, model: ExportedModel) -> Check:
    found = {name: count for name, count in model.stray_operations().items() if count}
    note = ", ".join(f"{count} {name}" for name, count in found.items())
    total = sum(found.values())
    return line_of(artifact.label, "stray transposes, casts", "", 0, total, "0", "failed" if total else "passed", note)


def _size(artifact: Artifact, path: Path) -> Check:
    predicted = format_named(artifact.model_format).weight_bytes(artifact.child, artifact.precision)
    extra = SIZE_EXTRA_BYTES[artifact.precision]
    tolerance = SIZE_SHARE * predicted + extra
    allowed = f"{SIZE_SHARE:.0%} + {extra // 1024} KiB"
    size = size_of_path(path)
    verdict = judge(predicted, size, tolerance)
    return line_of(artifact.label, "size", "bytes", predicted, size, allowed, verdict)
