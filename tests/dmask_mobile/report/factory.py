"""A whole run made from records: nothing is trained or measured."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import Artifact, Precision, Preprocessing
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.verification import Check, Verification, line_of
from dmask_mobile.run import BudgetRecord, RunFolder, RunRecord, SearchResultRecord
from tests.latency_tables.factory import network_ms, write_table

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
NAMES = ("plain", "zwei & drei", HOSTILE, "vier")
SPACE = SearchSpace.model_validate(
    {
        "name": "tiny",
        "classes": len(NAMES),
        "input": {"resolutions": [16, 32]},
        "stem": {"widths": [8, 16]},
        "stages": [
            {"blocks": 3, "widths": [8, 12, 16], "stride": 2, "expansions": [1, 2, 3], "kernels": [3, 5],
             "squeeze_excite": [False, True], "skip": True},
        ],
        "last": {"widths": [16, 32]},
    }
)  # fmt: skip
EPOCHS = 6
CREATED = "2026-01-02T03:04:05.678+00:00"
WEIGHTS = hashlib.sha256(b"weights").hexdigest()
VERSIONS = {"python": "3.11.2", "torch": "2.13.0"}
PREPROCESSING = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)


def chosen() -> Choice:
    """The widest block first, then a narrow one with squeeze-excite, then a skipped one."""
    by_name = {"stage1.block2.squeeze_excite": 1, "stage1.block3.skip": 1, "stage1.block1.kernel": 1, "resolution": 1}
    return Choice(
        indices=tuple(by_name.get(d.name, min(1, len(d.options) - 1) * (d.kind == "width")) for d in SPACE.decisions)
    )


CHILD = SPACE.child(chosen(), "tiny-run")


def probabilities(epoch: int) -> dict[str, list[float]]:
    """Probabilities from undecided to decided; the share of the chosen option grows linearly."""
    found = {}
    for number, decision in enumerate(SPACE.decisions):
        count, decided = len(decision.options), epoch / (EPOCHS - 1)
        values = [(1 - decided) / count] * count
        values[chosen()[number]] += decided
        found[decision.name] = values
    return found


def metrics_line(epoch: int, limit: float) -> dict[str, object]:
    return {
        "epoch": epoch,
        "temperature": 5.0,
        "weights": {"loss": 2.0, "accuracy": epoch / 10},
        "gates": {"loss": 2.0, "accuracy": epoch / 11} if epoch else {},
        "expected": {"latency": limit * (1.5 - epoch / 10)},
        "budgets": {"latency": limit},
        "control": {"multipliers": [0.1 * epoch], "entropy_multiplier": 0.0},
        "entropy": 1 - epoch / (EPOCHS - 1),
        "probabilities": probabilities(epoch),
        "warnings": [],
    }


def searched_run(path: Path, *, space: SearchSpace = SPACE, names: tuple[str, ...] = NAMES) -> RunFolder:
    """A run whose search has ended: a table, a child, a log, a result; nothing is trained."""
    folder = RunFolder(path)
    space = space.with_classes(len(names))
    child = space.child(chosen(), "tiny-run")
    predicted = network_ms(child)
    folder.tables_path.mkdir(parents=True)
    write_table(folder.tables_path / "table.jsonl", space)
    RunRecord(
        created=CREATED,
        versions=VERSIONS,
        preprocessing=PREPROCESSING,
        class_names=names,
        data="glyphs",
        data_digest="d" * 16,
        data_notes=(f"note {HOSTILE}",),
        space=space,
        budgets=(BudgetRecord(cost="latency", limit=1.02 * predicted, unit="ms"),),
        search_settings={"epochs": EPOCHS, "warmup": 0.25, "seed": 3},
    ).write(folder.record_path)
    child.write(folder.child_path)
    SearchResultRecord(
        choice=chosen(),
        decided={},
        probabilities={name: tuple(values) for name, values in probabilities(EPOCHS - 1).items()},
        expected=(1.01 * predicted,),
        entropy=0.01,
        score=1.25,
        costs=(predicted,),
        gap=0.0,
        lower_bound_relaxed=False,
        derivation="exact",
    ).write(folder.search_result)
    lines = [metrics_line(epoch, 1.02 * predicted) for epoch in range(EPOCHS)]
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def trained_run(path: Path, **changes: object) -> RunFolder:
    """A run with a weights file of arbitrary content, because the report does not read it."""
    folder = searched_run(path, **changes)  # type: ignore[arg-type]
    record = folder.record()
    trained = {"accuracy": 0.875, "weights_sha256": WEIGHTS, "train_settings": {"epochs": 4, "init": "scratch"}}
    record.model_copy(update=trained).write(folder.record_path)
    folder.weights_path.parent.mkdir(parents=True)
    folder.weights_path.write_bytes(b"weights")
    return folder


def write_artifact(folder: RunFolder, model_format: str, precision: Precision = "fp32") -> Artifact:
    """The record of an export without its file."""
    child = folder.child()
    artifact = Artifact.model_validate(
        {
            "model_format": model_format, "precision": precision, "child": child, "child_digest": child.digest(),
            "weights_digest": WEIGHTS, "preprocessing": PREPROCESSING, "class_names": folder.record().class_names,
            "path": f"model-{precision}.{model_format}", "sha256": "cd" * 32, "size_bytes": 123_456,
            "convert_seconds": 1.5,
        }
    )  # fmt: skip
    artifact.write(folder.exports / f"{model_format}-{precision}.artifact.json")
    return artifact


def checks_of(child: ChildSpec) -> tuple[Check, ...]:
    """Lines in the order of a verification; the failed line is not the first."""
    ms = network_ms(child)
    return (
        line_of("onnx", "max error", "of range", 0.0, 2e-6, "0.0001", "passed", "256 images"),
        line_of("onnx", "SNR", "dB", None, 110.0, "at least 80", "passed"),
        line_of("onnx", "accuracy (test)", "share", 0.875, 0.875, "0.005", "passed"),
        line_of("onnx", "size", "bytes", 120_000, 123_456, "5% + 64 KiB", "passed"),
        line_of("onnx", "latency", "ms", ms, 1.04 * ms, "10%", "passed", "noise 1.0%, drift +2.0%"),
        line_of("onnx", "latency budget", "ms", 1.02 * ms, 1.04 * ms, "at most +5%", "passed", f"over {HOSTILE}"),
        line_of("coreml int8", "max error", "of range", 0.0, 0.31, "0.25", "failed", "256 images"),
        line_of("coreml int8", "accuracy", "share", None, None, "0.02", "not predicted"),
        line_of("coreml int8", "macs (graph)", "macs", 1000, None, "0", "not verified", "coreml hides its graph"),
    )


def whole_run(path: Path, *, passing: bool = False, **changes: object) -> RunFolder:
    """A run with everything: exports, a verification, the test split."""
    folder = trained_run(path, **changes)
    write_artifact(folder, "onnx")
    write_artifact(folder, "coreml", "int8")
    checks = [check for check in checks_of(folder.child()) if not passing or check.artifact == "onnx"]
    child_digest = folder.child().digest()
    Verification(child_digest=child_digest, created=CREATED, checks=tuple(checks)).write(folder.verification_path)
    write_accuracy(folder)
    return folder


def write_accuracy(folder: RunFolder) -> AccuracyRecord:
    """9 of 10 images of each class are classified correctly; the tenth is predicted as the next class."""
    names = folder.record().class_names
    count = len(names)
    rows = [[9 * (k == j) + (j == (k + 1) % count) for j in range(count)] for k in range(count)]
    found = AccuracyRecord.from_confusion(
        rows, split="test", data_digest="d" * 16, weights_sha256=WEIGHTS, class_names=names, times_opened=1
    )
    found.write(folder.test_path)
    return found
