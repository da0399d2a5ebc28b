"""Verifying a run's exports and single files, through the API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dmask_mobile import api
from dmask_mobile.api.verifying import check_fits_one
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact, LatencyPrediction
from dmask_mobile.records.space import load_space
from dmask_mobile.records.verification import Check, Verification
from dmask_mobile.run import BudgetRecord, RunFolder
from export.verification.latency_verdict import PredictedLatency

SPACE = load_space("demo").with_classes(2)
CHILD = SPACE.child(SPACE.smallest(), "small")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Enough images for a verification, of two classes."""
    root = tmp_path_factory.mktemp("data")
    for part, count in (("train", 20), ("val", 130)):
        for index, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                color = (255 * index, number, 255 - number)
                Image.new("RGB", (32, 32), color).save(root / part / name / f"{number}.png")
    return str(root)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: str) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    api.start_run(CHILD, folder)
    api.export(folder, ["onnx"], ["fp32", "int8"], data=data)
    return folder


def lines(verification: Verification, artifact: str) -> dict[str, Check]:
    return {check.quantity: check for check in verification.checks if check.artifact == artifact}


def test_a_run_with_two_precisions(run: Path, data: str) -> None:
    verification = api.verify(run, data=data)
    assert {check.artifact for check in verification.checks} == {"onnx", "onnx int8"}
    assert all(check.verdict == "passed" for check in lines(verification, "onnx").values())
    assert Verification.read(run / "verification.json") == verification


def test_a_file_in_its_run_finds_all_it_needs(run: Path, data: str) -> None:
    verification = api.verify([run / "exports" / "model.onnx"], data=data)
    assert verification.passed
    assert lines(verification, "onnx")["max error"].note == "260 images"


def test_a_file_elsewhere_says_what_it_promises_but_its_numbers_need_the_run(
    run: Path, data: str, tmp_path: Path
) -> None:
    moved = tmp_path / "mine.onnx"
    shutil.copy(run / "exports" / "model.onnx", moved)
    verification = api.verify([moved])
    found = lines(verification, "onnx")
    assert (found["numerics"].verdict, found["numerics"].note) == (
        "not verified",
        "no run to compare with; give --run RUN",
    )
    assert found["macs (graph)"].verdict == found["identity"].verdict == "passed"
    assert not verification.passed
    assert (tmp_path / "mine.onnx.verification.json").exists()
    assert api.verify([moved], run=run, data=data).passed


def test_a_file_of_another_run_is_not_this_runs(run: Path, data: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    api.start_run(SPACE.child(SPACE.largest(), "large"), other)
    api.export(other, ["onnx"])
    verification = api.verify([other / "exports" / "model.onnx"], run=run, data=data)
    identity = lines(verification, "onnx")["identity"]
    assert identity.verdict == "failed"
    assert "it was made from other weights than this run's" in identity.note


def test_a_measurement_from_elsewhere_is_labelled(run: Path, data: str, tmp_path: Path) -> None:
    output = tmp_path / "perf.txt"
    output.write_text("P50 Latency: 0.002 s\n")
    settings = api.VerifySettings(measured=[output])
    found = lines(api.verify([run / "exports" / "model.onnx"], data=data, settings=settings), "onnx")
    assert (found["latency"].measured, found["latency"].verdict) == (2.0, "not verified")  # nothing predicted it
    with pytest.raises(DmaskError, match="two measurements of onnx"):
        api.verify(run, data=data, settings=api.VerifySettings(measured=[output, output]))


def test_a_measurement_must_fit_one_prediction(run: Path) -> None:
    """A benchmark program's output does not say on which of two phones it ran."""
    artifacts = [Artifact.read(path) for path in sorted((run / "exports").glob("*.artifact.json"))]
    (onnx,) = (artifact for artifact in artifacts if (artifact.model_format, artifact.precision) == ("onnx", "fp32"))
    prediction = LatencyPrediction(
        ms=1, spread_ms=0, table_digest="t", device="d", runtime="r", precision="fp32", threads=1
    )
    pixel, galaxy = (
        PredictedLatency(f"latency@{name}", "onnx", "fp32", prediction, None, "") for name in ("pixel", "galaxy")
    )
    with pytest.raises(DmaskError, match=r"onnx fits 2 predictions: latency@pixel of '.*', latency@galaxy of '.*'"):
        check_fits_one("onnx", [onnx], [pixel, galaxy])
    check_fits_one("onnx", artifacts, [pixel])
    check_fits_one("onnx", [onnx], [pixel._replace(precision="int8"), galaxy])
    travelling = [artifact.model_copy(update={"latency": prediction}) for artifact in artifacts]
    with pytest.raises(DmaskError, match=r"onnx fits 2 predictions: the one in '.*', the one in '.*'"):
        check_fits_one("onnx", travelling, [])
    check_fits_one("onnx", artifacts, [])
    with pytest.raises(DmaskError, match="onnx fits 2 predictions"):
        check_fits_one("onnx", artifacts, [pixel._replace(precision="int8"), galaxy])


def test_exports_are_described_and_files_of_one_name_do_not_collide(run: Path) -> None:
    paths = RunFolder(run).exports.iterdir()
    names = sorted(path.name for path in paths if not path.name.endswith(".verification.json"))
    assert names == ["model-int8.onnx", "model.onnx", "onnx-int8.artifact.json", "onnx.artifact.json"]
    artifact = Artifact.read(run / "exports" / "onnx-int8.artifact.json")
    assert (artifact.label, artifact.child_digest) == ("onnx int8", CHILD.digest())


def test_int8_without_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    api.start_run(CHILD, tmp_path / "run")
    with pytest.raises(DmaskError, match="this run names no data"):
        api.export(tmp_path / "run", ["onnx"], ["fp32", "int8"])
    assert not (tmp_path / "run" / "exports").exists()


def test_an_artifact_record_of_the_version_before_is_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"format": "dmask-artifact", "version": 1}))
    with pytest.raises(DmaskError, match="version 1 of dmask-artifact, but this dmask-mobile reads version 2"):
        Artifact.read(path)


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="nothing to verify"):
        api.verify([])
    with pytest.raises(DmaskError, match=r"is no run folder: it has no run\.json"):
        api.verify(tmp_path)


def test_a_model_without_a_record_is_not_passed_over(run: Path, data: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "exports" / "model.tflite").write_bytes(b"?")
    with pytest.raises(DmaskError, match=r"model\.tflite' has no record of its export"):
        api.verify(copy, data=data)
    assert not (copy / "verification.json").exists()  # nor does the last verdict stay


def test_a_latency_budget_that_nothing_was_held_to_is_not_verified(run: Path, data: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = RunFolder(copy).record()
    budget = BudgetRecord(cost="latency", limit=2.0, unit="ms")
    record.model_copy(update={"budgets": (budget,)}).write(copy / "run.json")
    verification = api.verify(copy, data=data)
    line = lines(verification, "run")["latency budget"]
    assert (line.verdict, line.note) == ("not verified", "its table is not at hand; give --table")
    assert not verification.passed


def test_leave_must_name_what_it_is_for(run: Path, data: str) -> None:
    with pytest.raises(DmaskError, match="names a quantity"):
        api.verify(run, data=data, settings=api.VerifySettings(allow_unverified=[""]))


def test_nothing_to_export(run: Path) -> None:
    with pytest.raises(DmaskError, match="nothing to export"):
        api.export(run, [], ["fp32"])
