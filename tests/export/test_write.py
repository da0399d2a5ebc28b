"""The checks before an export, and the files after a failed one."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact
from export.write import export_child, plan_exports
from tests.export.factory import CHILD, described, exported, images_of, telling_network
from tests.export.formats_at import ALL_FORMATS, ALL_VARIANTS
from tests.full_disk import full_disk


def test_a_pair_that_cannot_be_is_skipped_where_others_are_left() -> None:
    plan = plan_exports(["onnx", "ncnn", "onnx"], ["fp32", "int8", "fp32"])
    assert plan.pairs == (("onnx", "fp32"), ("onnx", "int8"), ("ncnn", "fp32"))
    (skipped,) = plan.skipped
    assert skipped.startswith("format ncnn has no int8: ")


@pytest.mark.parametrize(
    ("formats", "precisions", "message"),
    [
        (["ncnn"], ["int8"], "format ncnn has no int8: .*; choose another precision or format"),
        (["onnx"], ["fp8"], "no precision 'fp8'; choose from fp32, fp16, int8"),
        (["onnx", "tflite"], ["fp32"], "no export format 'tflite'"),
        ([], ["fp32"], "nothing to export"),
        (["onnx"], [], "nothing to export"),
    ],
)
def test_what_cannot_be_exported_at_all_is_an_error(formats: list[str], precisions: list[str], message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        plan_exports(formats, precisions)


def test_no_operator_set_is_imported_that_no_node_uses(tmp_path: Path) -> None:
    """ONNX Runtime 1.16 refuses versions of them that it does not know, used or not."""
    for precision in ("fp32", "fp16", "int8"):
        model = onnx.load(tmp_path / exported("onnx", tmp_path, precision=precision).path)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
        assert model.ir_version == 8


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["onnx", "coreml", "ncnn"])
def test_files_get_the_users_umask(format_name: str, umask: int, tmp_path: Path) -> None:
    exported(format_name, tmp_path / "exports")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "exports").rglob("*")}
    assert len(modes) >= 5
    for path, mode in modes.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path


@pytest.fixture
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def export_to(folder: Path, format_name: str, precision: str) -> Artifact:
    return export_child(
        telling_network(CHILD), described(format_name, precision=precision), folder, images_of(count=32)
    )


@pytest.mark.parametrize(("format_name", "precision"), ALL_VARIANTS)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    format_name: str, precision: str, tmp_path: Path, own_temporary_folder: Path
) -> None:
    with full_disk(8192), pytest.raises(DmaskError, match=r"cannot be written: .*; free some space") as caught:
        export_to(tmp_path, format_name, precision)
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.name != "golden"] == []
    assert list(own_temporary_folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ALL_FORMATS)
def test_an_export_leaves_nothing_in_the_temporary_folder(
    format_name: str, tmp_path: Path, own_temporary_folder: Path
) -> None:
    export_to(tmp_path, format_name, "fp32")
    assert list(own_temporary_folder.iterdir()) == []
    assert [path.name for path in tmp_path.rglob(".*")] == []


@pytest.mark.parametrize("format_name", ["coreml", "ncnn"])
def test_an_old_model_stays_until_the_new_one_is_whole(format_name: str, tmp_path: Path) -> None:
    class Unconvertible(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such operator")

    artifact = exported(format_name, tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / artifact.path).rglob("*") if path.is_file()}
    with pytest.raises(DmaskError, match="cannot be converted"):
        export_child(Unconvertible(), described(format_name), tmp_path)
    assert {p: p.read_bytes() for p in (tmp_path / artifact.path).rglob("*") if p.is_file()} == before
