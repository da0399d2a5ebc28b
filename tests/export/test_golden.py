"""The golden pair of an exported model matches it and no other model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, Preprocessing
from export.deployable import Deployable
from export.formats.registry import FORMATS
from export.golden import GoldenFinding, GoldenRecord, check_golden
from tests.export.factory import CHILD, exported, telling_network
from tests.export.formats_at import ALL_VARIANTS

NHWC = Preprocessing(
    mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), layout="NHWC", input_range=(0, 255), source_resolution=40
)


def finding(artifact: Artifact, folder: Path) -> GoldenFinding:
    return check_golden(artifact, FORMATS[artifact.model_format].open(folder / artifact.path), folder)


@pytest.mark.parametrize(("format_name", "precision"), ALL_VARIANTS)
def test_every_format_keeps_its_golden_pair(format_name: str, precision: str, tmp_path: Path) -> None:
    artifact = exported(format_name, tmp_path, precision=precision)
    found = finding(artifact, tmp_path)
    assert found.problem == ""
    assert found.error is not None
    assert found.error <= found.allowed


def test_the_pair_is_what_training_makes_of_the_photo_and_pytorch_of_that(tmp_path: Path) -> None:
    """Resized, cropped and subsampled here by Pillow and numpy alone."""
    artifact = exported("onnx", tmp_path, preprocessing=NHWC)
    record = GoldenRecord.read(tmp_path / "golden" / "onnx.json")
    with Image.open(tmp_path / "golden" / "photo.png") as photo:
        assert photo.size == (80, 60)
        square = photo.resize((53, 40), Image.Resampling.BILINEAR).crop((6, 0, 46, 40))
    positions = [i * 40 // 16 for i in range(16)]
    expected = np.asarray(square)[positions][:, positions].astype("<f4")
    given = np.frombuffer((tmp_path / "golden" / record.input).read_bytes(), "<f4").reshape(record.input_shape)
    assert np.array_equal(given[0], expected)
    with torch.no_grad():
        scores = Deployable(telling_network(CHILD), NHWC)(torch.from_numpy(given.copy()))[0]
    torch.testing.assert_close(torch.tensor(record.output), scores, rtol=0, atol=1e-4)
    assert record.label == artifact.class_names[int(scores.argmax())]


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_is_wrong_with_a_pair_is_told(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    golden = tmp_path / "golden"
    record = golden / "onnx.json"
    original = record.read_text()
    output = json.loads(original)["output"]

    edit(record, output=[output[0] + 1, *output[1:]])
    found = finding(artifact, tmp_path)
    assert found.error == pytest.approx(1, abs=1e-4)
    assert found.error > found.allowed

    record.write_text(original)
    edit(record, label="none")
    assert "label is not the class of the highest score" in finding(artifact, tmp_path).problem

    record.write_text(original)
    edit(record, artifact_sha256="0")
    assert finding(artifact, tmp_path).problem == "the golden pair belongs to another file; export it again"

    record.write_text(original)
    edit(record, output=output[1:])
    assert "it returns 5 scores, but the golden output has 4" in finding(artifact, tmp_path).problem

    record.write_text(original)
    Image.new("RGB", (64, 48)).save(golden / "photo.png")
    assert (
        finding(artifact, tmp_path).problem == "the golden input is not the result of the preprocessing of 'photo.png'"
    )

    record.unlink()
    assert "no golden pair 'golden/onnx.json'" in finding(artifact, tmp_path).problem


@pytest.mark.parametrize("name", ["../model.onnx", "/dev/zero", "..", "a\nb"])
def test_a_record_names_files_beside_itself_only(name: str, tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    edit(tmp_path / "golden" / "onnx.json", input=name)
    with pytest.raises(DmaskError, match=r"input: a name is printable characters without / and"):
        finding(artifact, tmp_path)


def test_an_input_that_was_cut_is_refused(tmp_path: Path) -> None:
    artifact = exported("onnx", tmp_path)
    given = tmp_path / "golden" / "onnx.input"
    given.write_bytes(given.read_bytes()[:-4])
    with pytest.raises(DmaskError, match=r"onnx.input' must have 3072 bytes, found 3068; export the model again"):
        finding(artifact, tmp_path)
