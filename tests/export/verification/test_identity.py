"""Contradictions between a model's file, its metadata, its record and its run, in every format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, hash_path, size_of_path
from dmask_mobile.records.verification import Check
from export.verification.verify import verify_artifact
from tests.export.factory import exported, reference
from tests.export.formats_at import ALL_FORMATS

Exported = Callable[[str, Path], Artifact]


@pytest.fixture(scope="module")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports a format once and copies it."""
    done: dict[str, tuple[Artifact, Path]] = {}

    def copied(format_name: str, folder: Path) -> Artifact:
        if format_name not in done:
            source = tmp_path_factory.mktemp(format_name)
            done[format_name] = exported(format_name, source), source
        artifact, source = done[format_name]
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return artifact

    return copied


def identity_of(artifact: Artifact, folder: Path, recorded_accuracy: float | None = None) -> Check:
    """The first line; without a run where no accuracy is given."""
    compared = "no run" if recorded_accuracy is None else reference(recorded_accuracy=recorded_accuracy)
    return next(verify_artifact(artifact, folder, compared))


def recorded_anew(artifact: Artifact, folder: Path) -> Artifact:
    """The record that a person who changed the file would write."""
    path = folder / artifact.path
    return artifact.model_copy(update={"sha256": hash_path(path), "size_bytes": size_of_path(path)})


def verdict_of(artifact: Artifact, folder: Path) -> str:
    """The verdict on the identity, or the information that the file cannot be loaded."""
    try:
        return identity_of(artifact, folder).verdict
    except DmaskError as error:
        return "cannot be loaded" if "cannot be loaded as" in error.problem else error.problem


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_a_wrong_recorded_size_or_hash_is_caught(format_name: str, export_once: Exported, tmp_path: Path) -> None:
    artifact = export_once(format_name, tmp_path)
    assert identity_of(artifact, tmp_path).verdict == "passed"
    larger = artifact.model_copy(update={"size_bytes": artifact.size_bytes + 1})
    check = identity_of(larger, tmp_path)
    assert check.verdict == "failed"
    assert check.note == f"it has {artifact.size_bytes:,} bytes, but its record says {artifact.size_bytes + 1:,}"
    check = identity_of(artifact.model_copy(update={"sha256": "0" * 64}), tmp_path)
    assert check.verdict == "failed"
    assert check.note.startswith("the file is not the one that was exported (its SHA-256 differs)")


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_appended_bytes_are_caught_whatever_the_record_says(
    format_name: str, export_once: Exported, tmp_path: Path
) -> None:
    """After the end of each file: a record of before, and one that was made for the longer file."""
    artifact = export_once(format_name, tmp_path)
    for file in files_of(tmp_path / artifact.path):
        content = file.read_bytes()
        file.write_bytes(content + b"appended")
        for record in (artifact, recorded_anew(artifact, tmp_path)):
            assert verdict_of(record, tmp_path) in ("failed", "cannot be loaded"), file
        file.write_bytes(content)
    assert identity_of(artifact, tmp_path).verdict == "passed"


@pytest.mark.parametrize("format_name", ["coreml", "ncnn"])
def test_a_file_too_many_in_a_folder_is_caught_whatever_the_record_says(
    format_name: str, export_once: Exported, tmp_path: Path
) -> None:
    artifact = export_once(format_name, tmp_path)
    (tmp_path / artifact.path / "more.txt").write_text("ten bytes.")
    check = identity_of(artifact, tmp_path)
    assert check.verdict == "failed"
    assert "SHA-256 differs" in check.note
    check = identity_of(recorded_anew(artifact, tmp_path), tmp_path)
    assert check.verdict == "failed"
    assert check.note == "10 of its bytes belong to no part of the model"


@pytest.mark.parametrize(("end", "found"), [("input", "picture and output"), ("output", "input and picture")])
def test_a_renamed_end_is_caught_whatever_the_record_says(
    end: str, found: str, export_once: Exported, tmp_path: Path
) -> None:
    artifact = export_once("onnx", tmp_path)
    model = onnx.load(tmp_path / artifact.path)
    for names in [getattr(node, end) for node in model.graph.node]:
        names[:] = ["picture" if name == end else name for name in names]
    (value,) = getattr(model.graph, end)
    value.name = "picture"
    onnx.save(model, tmp_path / artifact.path)
    check = identity_of(recorded_anew(artifact, tmp_path), tmp_path)
    assert check.verdict == "failed"
    assert check.note == f"its input and output must be named input and output, found {found}"


def test_another_accuracy_than_the_runs_is_caught(export_once: Exported, tmp_path: Path) -> None:
    artifact = export_once("onnx", tmp_path)
    check = identity_of(artifact, tmp_path, recorded_accuracy=0.5)
    assert check.verdict == "failed"
    assert check.note == "it names another accuracy than this run"


def test_a_description_of_an_earlier_version_is_no_contradiction(export_once: Exported, tmp_path: Path) -> None:
    """Artifacts of version 2 did not say how a photograph becomes an input."""
    artifact = export_once("onnx", tmp_path)
    path = tmp_path / artifact.path
    model = onnx.load(path)
    (entry,) = (prop for prop in model.metadata_props if prop.key == "dmask.description")
    description = json.loads(entry.value)
    for field in ("orientation", "resize", "interpolation", "crop"):
        del description["preprocessing"][field]
    entry.value = json.dumps(description, sort_keys=True)
    onnx.save(model, path)
    assert identity_of(recorded_anew(artifact, tmp_path), tmp_path).verdict == "passed"
