"""What every reader says of its file's own names and size, and what it refuses to read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from dmask_mobile.errors import DmaskError
from export.formats.protocols import EXPECTED_NAMES, EndNames
from export.formats.registry import FORMATS
from tests.export.factory import exported
from tests.export.formats_at import ALL_FORMATS

Exported = Callable[[str], Path]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The small network in a format, converted once."""
    folder, done = tmp_path_factory.mktemp("originals"), dict[str, Path]()

    def path_of(format_name: str) -> Path:
        if format_name not in done:
            done[format_name] = folder / exported(format_name, folder).path
        return done[format_name]

    return path_of


@pytest.fixture
def copy_of(originals: Exported, tmp_path: Path) -> Exported:
    """A copy of the small network that a test may break."""

    def copied(format_name: str) -> Path:
        path = tmp_path / originals(format_name).name
        if originals(format_name).is_dir():
            shutil.copytree(originals(format_name), path)
        else:
            shutil.copyfile(originals(format_name), path)
        return path

    return copied


def largest_file(path: Path) -> Path:
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size) if path.is_dir() else path


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_our_models_have_the_expected_names_and_no_unused_bytes(format_name: str, originals: Exported) -> None:
    model = FORMATS[format_name].open(originals(format_name))
    assert model.names() == (None if format_name == "executorch" else EXPECTED_NAMES)
    assert model.unused_bytes() == 0


@pytest.mark.parametrize(
    ("format_name", "appended"),
    [
        ("onnx", b"\xfa\x07\x05extra"),  # field 127, which ONNX does not have
        ("onnx", b"\x08\x08"),  # the IR version a second time
        pytest.param("litert", b"e" * 20, marks=pytest.mark.slow),
        pytest.param("executorch", b"e" * 20, marks=pytest.mark.slow),
        ("coreml", b"\0" * 64),
    ],
)
def test_appended_bytes_are_unused(format_name: str, appended: bytes, copy_of: Exported) -> None:
    path = copy_of(format_name)
    file = path / "Data/com.apple.CoreML/weights/weight.bin" if format_name == "coreml" else path
    file.write_bytes(file.read_bytes() + appended)
    assert FORMATS[format_name].open(path).unused_bytes() == len(appended)


@pytest.mark.parametrize("format_name", ["coreml", "ncnn"])
def test_other_files_in_a_folder_are_unused(format_name: str, copy_of: Exported) -> None:
    path = copy_of(format_name)
    (path / "payload").write_bytes(b"12345")
    assert FORMATS[format_name].open(path).unused_bytes() == 5


def test_tensors_in_other_files_are_refused(copy_of: Exported) -> None:
    path = copy_of("onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    (path.parent / "secret").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "secret", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DmaskError, match=f"the values of its tensor '{tensor.name}' are in another file"):
        FORMATS["onnx"].open(path)


def test_a_tensor_that_no_memory_holds_is_refused(copy_of: Exported) -> None:
    path = copy_of("onnx")
    model = onnx.load(path)
    sizes = onnx.helper.make_tensor("sizes", onnx.TensorProto.INT64, [1], [2**40])
    model.graph.initializer.append(sizes)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["sizes"], ["huge"]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        DmaskError, match=r"a tensor has the shape \(1099511627776,\); at most [\d,]+ values are allowed"
    ):
        FORMATS["onnx"].open(path)


def test_renamed_ends_are_told(copy_of: Exported) -> None:
    path = copy_of("onnx")
    model = onnx.load(path)
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    onnx.save(model, path)
    assert FORMATS["onnx"].open(path).names() == EndNames(("image",), ("output",))


@pytest.mark.parametrize("item", ["../model.mlmodel", "/etc/passwd", "com.apple.CoreML/../../../x", ""])
def test_a_package_names_no_file_outside_itself(item: str, copy_of: Exported) -> None:
    path = copy_of("coreml")
    manifest = json.loads((path / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = item
    (path / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DmaskError, match=r"its manifest names '.*', which is not inside the package"):
        FORMATS["coreml"].open(path)


def test_a_package_without_a_manifest_gets_none(copy_of: Exported) -> None:
    path = copy_of("coreml")
    (path / "Manifest.json").unlink()
    with pytest.raises(DmaskError, match=r"cannot be loaded as a Core ML package: .*Manifest\.json"):
        FORMATS["coreml"].open(path)
    assert not (path / "Manifest.json").exists()


def test_a_package_holds_no_links(copy_of: Exported) -> None:
    path = copy_of("coreml")
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    weights.rename(path.parent / "elsewhere")
    weights.symlink_to(path.parent / "elsewhere")
    with pytest.raises(DmaskError, match=r"'weight\.bin' in it is a symbolic link"):
        FORMATS["coreml"].open(path)


@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_a_file_beyond_the_limit_is_not_read(format_name: str, copy_of: Exported) -> None:
    path = copy_of(format_name)
    with largest_file(path).open("r+b") as file:
        file.truncate(2**30 + 1)  # a hole: it takes no place
    with pytest.raises(DmaskError, match=r"has 1,073,741,825 bytes; at most [\d,]+ are allowed"):
        FORMATS[format_name].open(path)


def test_a_damaged_name_prints_nothing(copy_of: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime would announce on standard output that it tries again; that is where --json goes."""
    path = copy_of("onnx")
    path.write_bytes(path.read_bytes().replace(b"HardSwish", b"\xfeardSwish"))
    with pytest.raises(DmaskError, match="cannot be loaded as an ONNX model"):
        FORMATS["onnx"].open(path)
    assert capfd.readouterr().out == ""
