"""Exporting through the API: errors before any work, and the files left by a killed export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dmask_mobile.api import export, skipped_exports, start_run
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import temporary_affixes
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.run import RunFolder
from tests.export.factory import CHILD


@pytest.fixture
def run(tmp_path: Path) -> Path:
    start_run(CHILD, tmp_path / "run")
    return tmp_path / "run"


def test_an_impossible_pair_is_told_before_data_is_read(run: Path) -> None:
    with pytest.raises(DmaskError, match="format ncnn has no int8"):
        export(run, ["ncnn"], ["int8"], data="no such data")
    assert skipped_exports(["onnx"], ["fp32", "int8"]) == ()
    (skipped,) = skipped_exports(["onnx", "ncnn"], ["fp32", "int8"])
    assert "format ncnn has no int8" in skipped


def test_the_other_pairs_are_exported_each_once(run: Path) -> None:
    artifacts = export(run, ["ncnn", "onnx", "onnx"], ["fp32"])
    assert [artifact.label for artifact in artifacts] == ["ncnn", "onnx"]


def test_an_export_needs_no_images_for_an_int8_that_is_skipped(run: Path) -> None:
    artifacts = export(run, ["ncnn"], ["fp32", "int8"], data="no such data")
    assert [artifact.label for artifact in artifacts] == ["ncnn"]


@pytest.mark.slow
def test_what_a_killed_export_left_is_removed(run: Path) -> None:
    exports = RunFolder(run).exports
    exports.mkdir()
    code = "import sys; from pathlib import Path; from dmask_mobile.records.base import temporary_affixes;"
    code += "print('rest'.join(temporary_affixes(Path(sys.argv[1]))))"
    names = [
        subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("model.onnx", "model.ncnn")
    ]
    (exports / names[0]).write_bytes(b"half")
    (exports / names[1]).mkdir()
    (exports / names[1] / "model.param").write_bytes(b"half")
    (exports / ".mine").write_bytes(b"")
    ours = exports / "rest".join(temporary_affixes(Path("model.onnx")))
    ours.write_bytes(b"of a process that runs")
    export(run, ["onnx"])
    assert {path.name for path in exports.glob(".*")} == {".mine", ours.name}


def test_a_run_of_a_child_whose_name_is_a_path_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "child.json"
    CHILD.write(path)
    path.write_text(path.read_text().replace('"name": "export-child"', '"name": "../../x"'))
    with pytest.raises(DmaskError, match="name: a name is printable characters without / and"):
        ChildSpec.read(path)
