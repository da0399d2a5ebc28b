"""Untrusted names: which of them may be a folder, a line or a label."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, ModelDescription, Preprocessing
from dmask_mobile.records.child import MAX_NAME, ChildSpec
from dmask_mobile.records.names import as_name, check_class_names
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.run import RunRecord

SPACE = load_space("demo")
CHILD = SPACE.child(SPACE.smallest())
NAMES = tuple(str(number) for number in range(CHILD.classes))
BAD_NAMES = ["../../x", "/etc/x", "a\\b", ".", "..", "", "a\nb", "a\x1b[31m", "a\u202eb"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_no_path_and_one_line(name: str) -> None:
    for record in (CHILD, SPACE):
        with pytest.raises(DmaskError, match=r"name: (a name is printable characters|String should have at least 1)"):
            type(record).from_dict({**record.to_dict(), "name": name}, "file")


def test_usual_names_are_names() -> None:
    for name in ("demo-pixel 6", "réseau", "網路", ".hidden", "a..b", "x" * MAX_NAME):
        assert ChildSpec.from_dict({**CHILD.to_dict(), "name": name}, "file").name == name


@pytest.mark.parametrize(
    ("text", "name"), [("demo-a", "demo-a"), ("a/b\nc", "a-b-c"), ("..", "-"), ("", "-"), ("x" * 9, "xxxxx")]
)
def test_a_text_as_a_name(text: str, name: str) -> None:
    assert as_name(text, 6 if len(text) < 9 else 5) == name


def test_a_child_of_a_run_with_any_name_can_be_made() -> None:
    """A search must not fail because of the name of its folder."""
    child = SPACE.child(SPACE.smallest(), "demo-" + "ü\n" * MAX_NAME)
    assert ChildSpec.from_dict(child.to_dict(), "file") == child
    assert SearchSpace.from_dict(SPACE.to_dict(), "file") == SPACE


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "a\x00b", "a\x1b]0;b", "a\u2028b", "\x85", "\ud800"])
def test_a_class_name_is_one_line(bad: str) -> None:
    with pytest.raises(ValueError, match="the name of class 1 must be one line without control characters: '"):
        check_class_names(("a", bad))


@pytest.mark.parametrize("bad", ["", "  ", "x" * 501])
def test_a_class_name_says_something_and_not_too_much(bad: str) -> None:
    with pytest.raises(ValueError, match="the name of class 0 must have 1 to 500 characters"):
        check_class_names((bad, "a"))


def test_class_names_of_any_language_and_equal_ones() -> None:
    check_class_names(("crane", "crane", "می‌خواهم", "👩‍🔬", 'quote"', "${x}", "\\(x)"))


def described(**fields: object) -> dict[str, object]:
    content = {
        "format": "dmask-artifact",
        "version": 3,
        "model_format": "onnx",
        "child": CHILD.model_dump(mode="json"),
        "child_digest": CHILD.digest(),
        "weights_digest": "0",
        "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]},
        "class_names": NAMES,
        "path": "model.onnx",
        "sha256": "0",
        "size_bytes": 1,
        "convert_seconds": 0,
    }
    return {**content, **fields}


@pytest.mark.parametrize("path", ["../model.onnx", "/dev/zero", "sub/model.onnx", "..", ".", "", "a\\b", "x" * 256])
def test_an_artifact_is_a_file_beside_its_record(path: str) -> None:
    with pytest.raises(DmaskError, match=r"path: (a name is printable|the name of a file has at most 255 bytes)"):
        Artifact.from_dict(described(path=path), "file")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": NAMES[:-1]}, "35 class names for 36 classes"),
        ({"class_names": (*NAMES[:-1], "a\nfun main()")}, "the name of class 35 must be one line"),
        ({"author": "A\nB"}, "author: must be one line without control characters"),
        ({"license": "x" * 1001}, "license: must have at most 1000 characters, got 1,001"),
    ],
)
def test_what_a_description_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DmaskError, match=message) as caught:
        Artifact.from_dict(described(**fields), "file")
    assert "\n" not in str(caught.value)


def test_a_run_refuses_the_same_class_names() -> None:
    content = {"format": "dmask-run", "version": 2, "created": "", "versions": {}}
    preprocessing = Preprocessing(mean=(0,), std=(1,)).model_dump()
    with pytest.raises(DmaskError, match="the name of class 0 must be one line"):
        RunRecord.from_dict({**content, "preprocessing": preprocessing, "class_names": ["a\nb"]}, "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [0, 0, 0]}, r"preprocessing\.std\.0: .* greater than or equal to 0\.000001, got 0"),
        ({"std": [1, 1]}, "preprocessing: mean and std need a number for each channel, got 3 and 2 numbers"),
        ({"mean": [], "std": []}, "preprocessing: mean and std need a number for each channel, got 0 and 0 numbers"),
        ({"mean": [1e300, 0, 0]}, r"preprocessing\.mean\.0: .* less than or equal to 1000000"),
        ({"source_resolution": 10**9}, r"preprocessing\.source_resolution: .* less than or equal to 8192, got"),
        ({"resize_resolution": 10**9}, r"preprocessing\.resize_resolution: .* less than or equal to 81920, got"),
        ({"input_range": [0, 0]}, r"preprocessing: input_range must be 0\.\.1 or 0\.\.255, got \(0\.0, 0\.0\)"),
    ],
)
def test_preprocessing_that_cannot_be_computed_is_refused(change: dict[str, object], message: str) -> None:
    content = {"format": "dmask-run", "version": 2, "created": "", "versions": {}, "class_names": ["a"]}
    preprocessing = {"mean": [0, 0, 0], "std": [1, 1, 1], **change}
    with pytest.raises(DmaskError, match=message) as caught:
        RunRecord.from_dict({**content, "preprocessing": preprocessing}, "file")
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_an_artifact_of_the_last_version_is_read() -> None:
    """Version 2 did not describe the preprocessing of a photograph, which was the same as today."""
    found = Artifact.from_dict(described(version=2), "file")
    assert found.preprocessing == Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), crop="center", resize="shorter side")
    assert found.to_dict()["version"] == 3


def test_a_description_of_30_mb_is_refused_in_one_line() -> None:
    with pytest.raises(DmaskError, match=r"has 31,457,280 characters; at most 16,777,216 are allowed"):
        ModelDescription.from_metadata({"dmask.description": "[" * (30 * 2**20)}, "model.onnx")


def test_a_folder_of_images_with_a_bad_name_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    from dmask_mobile.data.load import load_data

    for name in ("a", "b\nc"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(DmaskError, match=r"the name of class 1 must be one line.*; rename that class"):
        load_data(str(tmp_path), 8)
