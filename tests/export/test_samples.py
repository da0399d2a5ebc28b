"""The source files for apps: right constants, right escapes, nothing left to fill in."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, Preprocessing
from export.samples import check_sample, write_sample
from tests.export.factory import described


def artifact(model_format: str, path: str, **fields: object) -> Artifact:
    description = described(model_format, **fields)
    return Artifact(**dict(description), path=path, sha256="0", size_bytes=1, convert_seconds=0)


def test_android_sample_speaks_of_the_model(tmp_path: Path) -> None:
    layout = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), layout="NHWC", input_range=(0, 255), source_resolution=32)
    names = ("a", 'quote"', "$dollar", "back\\slash", "é")
    found = artifact("litert", "model-int8.tflite", preprocessing=layout, class_names=names, output="probabilities")
    text = write_sample("android", [artifact("onnx", "model.onnx"), found], tmp_path).read_text()
    assert 'context.assets.open("model-int8.tflite")' in text
    assert "const val SIZE = 16" in text
    assert "const val SOURCE = 32" in text
    assert "const val TOP_VALUE = 255f" in text
    assert "const val CHANNELS_LAST = true" in text
    assert r'listOf("a", "quote\"", "\$dollar", "back\\slash", "\u00e9")' in text
    assert found.child_digest in text
    assert "(probabilities)" in text
    assert 'read("litert.json")' in (tmp_path / "ClassifierTest.kt").read_text()


@pytest.mark.parametrize(
    ("name", "literal"),
    [('"); exit(1); ("', r'"\"); exit(1); (\""'), ("${exit(1)}", r'"\${exit(1)}"'), ("\\", r'"\\"')],
)
def test_a_class_name_is_no_code_in_kotlin(name: str, literal: str, tmp_path: Path) -> None:
    found = artifact("litert", "model.tflite", class_names=(name, "b", "c", "d", "e"))
    text = write_sample("android", [found], tmp_path).read_text()
    assert f'listOf({literal}, "b", "c", "d", "e")' in text


@pytest.mark.parametrize("file_name", ["m\\(exit(1)).mlpackage", 'm"; exit(1); ".mlpackage'])
def test_a_file_name_is_no_code_in_swift(file_name: str, tmp_path: Path) -> None:
    if "\\" in file_name:  # refused by the record already
        with pytest.raises(ValueError, match="a name is printable characters without /"):
            artifact("coreml", file_name)
        return
    text = write_sample("ios", [artifact("coreml", file_name)], tmp_path).read_text()
    (line,) = (line for line in text.splitlines() if "forResource" in line)
    assert r'forResource: "m\u{22}\u{3b} exit\u{28}1\u{29}\u{3b} \u{22}", withExtension' in line


def test_ios_sample_reads_the_class_names_from_the_model(tmp_path: Path) -> None:
    text = write_sample("ios", [artifact("coreml", "model.mlpackage")], tmp_path).read_text()
    assert 'forResource: "model", withExtension: "mlmodelc"' in text
    assert "private let size = 16" in text
    assert "private let source = 16" in text
    assert 'metadata["dmask.class_names"]' in text
    assert "scores[$0] < scores[$1]" in text
    assert '["input": array]' in text
    test = (tmp_path / "ClassifierTests.swift").read_text()
    assert 'url("coreml.json")' in test


@pytest.mark.parametrize(
    ("platform", "message"),
    [("android", r"android sample loads litert, which is not exported; add --format litert"), ("symbian", "no sample")],
)
def test_what_cannot_be_written_is_said_first(platform: str, message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        check_sample(platform, ["onnx", "coreml"])
