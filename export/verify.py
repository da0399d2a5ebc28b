"""Verification: each promise about an artifact against what is found, with what is allowed between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, hash_path
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.cost import CostEstimate
from dmask_mobile.records.verification import Check, Verdict, judge
from export.deployable import Deployable
from export.formats import ExportedModel, format_named
from export.graph_counts import count_fvcore
from export.numerics import compare

MAX_RELATIVE_ERROR = 1e-4  # of the scores' range, fp32
MIN_TOP1_AGREEMENT = 0.995
MAX_ACCURACY_DROP = 0.005
MIN_IMAGES = 256
SIZE_SHARE, SIZE_EXTRA_BYTES = 0.05, 65_536  # the graph's own description, metadata
MIN_LATENCY_TOLERANCE = 0.10
UNSTABLE_NOISE = 0.10
MAX_DRIFT, MAX_ALLOWED_DRIFT = 0.10, 0.25  # without and with leave to drift


class MeasuredLatency(NamedTuple):
    """Typical milliseconds now, their relative noise, and the device's relative drift since the table was made."""

    ms: float
    noise: float
    drift: float


class LatencyProbe(Protocol):
    """Predicts with a table and measures on its device."""

    model_format: str

    def predict(self, child: ChildSpec) -> CostEstimate:
        """The promise."""
        ...

    def measure(self, path: Path) -> MeasuredLatency:
        """The artifact's latency now."""
        ...


class LatencyPromise(NamedTuple):
    """A table's word on the latency, named as budgets name it, and the budget in milliseconds, if there is one."""

    name: str
    probe: LatencyProbe
    budget_ms: float | None


class Reference(NamedTuple):
    """What artifacts are held against: the child, the network in PyTorch, and images (N, C, R, R) in 0..1."""

    child: ChildSpec
    model: Deployable
    images: Tensor
    labels: Tensor


def verify_artifact(
    artifact: Artifact,
    folder: Path,
    reference: Reference,
    promises: Sequence[LatencyPromise] = (),
    allow_drift: bool = False,
) -> Iterator[Check]:
    """All checks of one artifact; latency checks for the promises about its format.

    Raises:
        DmaskError: when the file is missing or does not load, and for fewer than 256 images.
    """
    path = folder / artifact.path
    if not path.exists():
        raise DmaskError(f"artifact '{path}' is missing", "export it again: dmask export RUN --format ...")
    if len(reference.images) < MIN_IMAGES:
        raise DmaskError(f"{len(reference.images)} validation images, at least {MIN_IMAGES} are needed")
    model = format_named(artifact.model_format).open(path)
    yield from _identity(artifact, path, model, reference.child)
    yield from _numerics(artifact, model, reference)
    yield from _counts(artifact, model, reference)
    yield _size(artifact, reference.child)
    for promise in promises:
        if promise.probe.model_format == artifact.model_format:
            yield from judge_latency(
                promise, promise.probe.predict(reference.child).value, promise.probe.measure(path), allow_drift
            )


def _identity(artifact: Artifact, path: Path, model: ExportedModel, child: ChildSpec) -> Iterator[Check]:
    metadata = model.metadata()
    findings = {
        "the file is not the one that was exported": hash_path(path) != artifact.sha256,
        "the record names another child": artifact.child_digest != child.digest(),
        "the metadata names another child": metadata.get("dmask.child_digest") != child.digest(),
        "the metadata has other class names": metadata.get("dmask.class_names") != json.dumps(artifact.class_names),
    }
    wrong = [finding for finding, found in findings.items() if found]
    yield Check(
        artifact=artifact.model_format,
        quantity="identity",
        unit="faults",
        predicted=0,
        measured=len(wrong),
        allowed="0",
        verdict="failed" if wrong else "passed",
        note="; ".join(wrong),
    )


def _numerics(artifact: Artifact, model: ExportedModel, reference: Reference) -> Iterator[Check]:
    with torch.no_grad():
        expected = torch.cat([reference.model(image[None]) for image in reference.images])
    found = compare(expected, model.scores(reference.images), reference.labels)
    note = f"{len(reference.images)} images"

    def line(quantity: str, unit: str, predicted: float, measured: float, tolerance: float) -> Check:
        return Check(
            artifact=artifact.model_format,
            quantity=quantity,
            unit=unit,
            predicted=predicted,
            measured=measured if measured < float("inf") else None,
            allowed=f"{tolerance:g}",
            verdict=judge(predicted, measured, tolerance),
            note=note,
        )

    yield line("numeric error", "of range", 0.0, found.relative_error, MAX_RELATIVE_ERROR)
    yield line("top-1 agreement", "share", 1.0, found.top1_agreement, 1 - MIN_TOP1_AGREEMENT)
    yield line("accuracy", "share", found.reference_accuracy, found.accuracy, MAX_ACCURACY_DROP)


def _counts(artifact: Artifact, model: ExportedModel, reference: Reference) -> Iterator[Check]:
    child = reference.child
    of_graph, of_fvcore = model.counts(), count_fvcore(reference.model.network, child.input_shape)
    for predicted, graph, fvcore in (
        (Macs().estimate(child), of_graph.macs, of_fvcore.macs),
        (Params().estimate(child), of_graph.params, of_fvcore.params),
    ):
        for source, measured in (("graph", graph), ("fvcore", fvcore)):
            yield Check(
                artifact=artifact.model_format,
                quantity=f"{predicted.cost} ({source})",
                unit=predicted.unit,
                predicted=predicted.value,
                measured=measured,
                allowed="0",
                verdict=judge(predicted.value, measured, 0),
            )


def _size(artifact: Artifact, child: ChildSpec) -> Check:
    predicted = WeightBytes().estimate(child).value
    tolerance = SIZE_SHARE * predicted + SIZE_EXTRA_BYTES
    return Check(
        artifact=artifact.model_format,
        quantity="size",
        unit="bytes",
        predicted=predicted,
        measured=artifact.size_bytes,
        allowed=f"{SIZE_SHARE:.0%} + {SIZE_EXTRA_BYTES // 1024} KiB",
        verdict=judge(predicted, artifact.size_bytes, tolerance),
    )


def judge_latency(
    promise: LatencyPromise, predicted_ms: float, measured: MeasuredLatency, allow_drift: bool = False
) -> Iterator[Check]:
    """The verdict on a latency, and on the budget that it must keep.

    Allowed is the largest of 10%, three times the noise, and the drift of the table's networks. A measurement with
    more than 10% noise, or on a device that has drifted by more than 10% (25% with ``allow_drift``), shows nothing:
    'not verified'.
    """
    tolerance = max(MIN_LATENCY_TOLERANCE, 3 * measured.noise, abs(measured.drift))
    stable = measured.noise <= UNSTABLE_NOISE and abs(measured.drift) <= (
        MAX_ALLOWED_DRIFT if allow_drift else MAX_DRIFT
    )
    note = f"noise {measured.noise:.1%}, drift {measured.drift:+.1%}"
    if not stable:
        note = f"unstable: {note}; close other programs and verify again, or profile again"

    def line(quantity: str, predicted: float, kept: bool, allowed: str) -> Check:
        verdict: Verdict = "not verified" if not stable else "passed" if kept else "failed"
        return Check(
            artifact=promise.probe.model_format,
            quantity=quantity,
            unit="ms",
            predicted=predicted,
            measured=measured.ms,
            allowed=allowed,
            verdict=verdict,
            note=note,
        )

    close = abs(measured.ms - predicted_ms) <= tolerance * predicted_ms
    yield line(promise.name, predicted_ms, close, f"{tolerance:.0%}")
    if promise.budget_ms is not None:
        kept = predicted_ms <= promise.budget_ms and measured.ms <= promise.budget_ms * (1 + tolerance)
        yield line(f"{promise.name} budget", promise.budget_ms, kept, f"at most +{tolerance:.0%}")
