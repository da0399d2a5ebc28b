"""Verifying a run's exports and single files, through the API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dmask_mobile import api
from dmask_mobile.api.budget_checks import budget_checks, table_budgets
from dmask_mobile.api.verifying import check_fits_one
from dmask_mobile.cli.outcome import exit_status_of_command
from dmask_mobile.costs.counts import Macs, Params, block_layers
from dmask_mobile.costs.memory import PeakActivationBytes
from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.data.load import load_data
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import Artifact, LatencyPrediction, Precision, Preprocessing
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.openings import SplitOpenings
from dmask_mobile.records.space import load_space
from dmask_mobile.records.verification import Check, Verification
from dmask_mobile.run import BudgetRecord, RunFolder, RunRecord
from export.verification.latency_verdict import PredictedLatency
from latency_tables.devices.native_output import Measurement

SPACE = load_space("demo").with_classes(2)
CHILD = SPACE.child(SPACE.smallest(), "small")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images of two classes, enough for a verification."""
    root = tmp_path_factory.mktemp("data")
    for part, count in (("train", 20), ("val", 130), ("test", 20)):
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
    assert f"child <code>{CHILD.digest()}</code>" in (run / "report.html").read_text()


def test_accuracies_are_those_of_the_test_split(run: Path, data: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    verification = api.verify(copy, data=data)
    for artifact in ("onnx", "onnx int8"):
        line = lines(verification, artifact)["accuracy (test)"]
        assert (line.verdict, line.note) == ("passed", "40 of 40 test images")
        assert float(line.allowed) == 1 / 40
    assert verification.split == "test"
    api.verify(copy, data=data)
    openings = SplitOpenings.read(copy / "test_openings.json").openings
    assert [(opening.by, opening.weights_sha256) for opening in openings] == [
        ("dmask verify", verification.weights_sha256)
    ]


def test_the_weights_must_have_the_accuracy_of_test_json(run: Path, data: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights, digest = RunFolder(run).record().weights_sha256, load_data(data, CHILD.resolution).digest
    RunFolder(copy).record().model_copy(update={"data": data, "data_digest": digest}).write(copy / "run.json")
    tested = api.measure_accuracy(copy)
    assert (tested.weights_sha256, tested.split, tested.num_images) == (weights, "test", 40)
    name, files = "accuracy of the weights (test)", [copy / "exports" / "model.onnx"]
    line = lines(api.verify(files), "run")[name]
    assert (line.verdict, line.predicted, line.measured) == ("passed", tested.accuracy, tested.accuracy)
    wrong = [[0, 20], [20, 0]] if tested.accuracy > 0.3 else [[20, 0], [0, 20]]
    fields = {name: getattr(tested, name) for name in ("split", "data_digest", "weights_sha256", "class_names")}
    AccuracyRecord.from_confusion(wrong, **fields).write(copy / "test.json")
    assert lines(api.verify(files), "run")[name].verdict == "failed"
    tested.model_copy(update={"weights_sha256": "others"}).write(copy / "test.json")
    assert name not in lines(api.verify(files), "run")


def test_data_without_a_test_split_is_judged_on_val(run: Path, data: str, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(Path(data) / part, tmp_path / "data" / part)
    verification = api.verify([run / "exports" / "model.onnx"], data=str(tmp_path / "data"))
    line = lines(verification, "onnx")["accuracy (val)"]
    assert (line.note, line.allowed, verification.split) == ("260 validation images", "0.005", "val")


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
    assert "it was made from other weights than those of this run" in identity.note


def test_a_network_without_a_data_set_is_verified_on_random_images(run: Path) -> None:
    verification = api.verify([run / "exports" / "model.onnx"])
    found = lines(verification, "onnx")
    assert verification.passed
    assert found["max error"].note == "256 images"
    assert (found["accuracy"].verdict, found["accuracy"].note) == ("not predicted", "the images have no labels")
    assert all(check.verdict == "passed" for name, check in found.items() if name != "accuracy")


def test_images_of_other_classes_serve_without_their_labels(data: str, tmp_path: Path) -> None:
    child = SPACE.with_classes(7).child(SPACE.smallest(), "seven")
    api.start_run(child, tmp_path / "run")
    api.export(tmp_path / "run", ["onnx"])
    verification = api.verify(tmp_path / "run", data=data)
    assert verification.passed
    assert lines(verification, "onnx")["max error"].note == "260 images"
    assert lines(verification, "onnx")["accuracy"].verdict == "not predicted"


def test_weights_without_their_recorded_accuracy_are_caught(run: Path, data: str, tmp_path: Path) -> None:
    """run.json and the model's metadata state a wrong accuracy of the weights."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    RunFolder(copy).record().model_copy(update={"accuracy": 0.25, "data": data}).write(copy / "run.json")
    shutil.rmtree(copy / "exports")
    api.export(copy, ["onnx"])
    verification = api.verify(copy)
    assert not verification.passed
    check = lines(verification, "run")["accuracy of the weights (val)"]
    assert (check.verdict, check.predicted) == ("failed", 0.25)
    assert check.note.startswith("260 of 260 validation images; the weights are not the trained ones")
    assert all(c.verdict in ("passed", "not predicted") for c in lines(verification, "onnx").values())


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
        PredictedLatency(f"latency@{name}", "onnx", "fp32", prediction, {}, "") for name in ("pixel", "galaxy")
    )
    measurement = Measurement(model_format="onnx", ms=1, source="perf_test", threads=1, delegate="cpu")
    with pytest.raises(DmaskError, match=r"onnx fits 2 predictions: latency@pixel of '.*', latency@galaxy of '.*'"):
        check_fits_one(measurement, [onnx], [pixel, galaxy])
    check_fits_one(measurement, artifacts, [pixel])
    check_fits_one(measurement, [onnx], [pixel._replace(precision="int8"), galaxy])
    travelling = [
        artifact.model_copy(update={"latency": prediction.model_copy(update={"precision": artifact.precision})})
        for artifact in artifacts
    ]
    with pytest.raises(DmaskError, match=r"onnx fits 2 predictions: latency of '.*int8.*', latency of '.*'"):
        check_fits_one(measurement, travelling, [])
    check_fits_one(measurement, artifacts, [])
    with pytest.raises(DmaskError, match="onnx fits 2 predictions"):
        check_fits_one(measurement, artifacts, [pixel._replace(precision="int8"), galaxy])


@pytest.mark.parametrize(
    ("measured", "match"),
    [
        ({"threads": 4}, "threads"),
        ({"delegate": "gpu"}, "delegate"),
        ({"precision": "int8"}, "precision"),
        ({"threads": 1, "delegate": "cpu", "precision": "fp32"}, None),
        ({}, None),  # it does not say
    ],
)
def test_a_measurement_with_other_settings_than_the_tables_is_refused(
    measured: dict[str, object], match: str | None, run: Path
) -> None:
    prediction = LatencyPrediction(
        ms=1, spread_ms=0, table_digest="t", device="d", runtime="r", precision="fp32", threads=1
    )
    predicted = PredictedLatency("latency", "onnx", "fp32", prediction, {}, "", "cpu")
    measurement = Measurement.model_validate({"model_format": "onnx", "ms": 1, "source": "x", **measured})
    artifact = Artifact.read(run / "exports" / "onnx.artifact.json")
    if match is None:
        check_fits_one(measurement, [artifact], [predicted])
        return
    with pytest.raises(DmaskError, match=match):
        check_fits_one(measurement, [artifact], [predicted])
    if match == "threads":  # the prediction in the file says the threads as well
        with pytest.raises(DmaskError, match=match):
            check_fits_one(measurement, [artifact.model_copy(update={"latency": prediction})], [])


def test_exports_are_described_and_files_of_one_name_do_not_collide(run: Path) -> None:
    paths = RunFolder(run).exports.iterdir()
    names = sorted(path.name for path in paths if not path.name.endswith(".verification.json"))
    assert names == ["golden", "model-int8.onnx", "model.onnx", "onnx-int8.artifact.json", "onnx.artifact.json"]
    artifact = Artifact.read(run / "exports" / "onnx-int8.artifact.json")
    assert (artifact.label, artifact.child_digest) == ("onnx int8", CHILD.digest())


def test_int8_without_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    api.start_run(CHILD, tmp_path / "run")
    with pytest.raises(DmaskError, match="this run has no record of its data"):
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
    with pytest.raises(DmaskError, match=r"is not a run folder: it has no run\.json"):
        api.verify(tmp_path)


@pytest.mark.parametrize("path", ["../../other/exports/model.onnx", "/dev/zero", "sub/model.onnx", "..", ""])
def test_a_record_that_names_a_path_elsewhere_is_refused(path: str, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = copy / "exports" / "onnx.artifact.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "path": path}))
    with pytest.raises(DmaskError, match=r"onnx\.artifact\.json': path"):
        api.verify(copy)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_a_time(seconds: float, run: Path) -> None:
    with pytest.raises(DmaskError, match="--time-limit must be a number of seconds above 0"):
        api.verify(run, settings=api.VerifySettings(time_limit=seconds))


def test_a_model_without_a_record_is_not_passed_over(run: Path, data: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "exports" / "model.tflite").write_bytes(b"?")
    with pytest.raises(DmaskError, match=r"model\.tflite' has no record of its export"):
        api.verify(copy, data=data)
    assert not (copy / "verification.json").exists()  # nor does the last verdict stay


@pytest.mark.parametrize("name", ["nothing", "model.onnx"])
def test_a_foreign_file_with_the_name_of_the_verification_is_kept(name: str, run: Path, tmp_path: Path) -> None:
    foreign = tmp_path / f"{name}.verification.json"
    foreign.write_text("mine\n")
    if name == "model.onnx":
        shutil.copy(run / "exports" / "model.onnx", tmp_path / name)
        with pytest.raises(DmaskError, match=r"verification\.json' exists and is not a verification by dmask-mobile"):
            api.verify([tmp_path / name])
    else:
        assert exit_status_of_command(["verify", str(tmp_path / name)]) == 2
    assert foreign.read_text() == "mine\n"


@pytest.mark.parametrize("missing", ["target", "run", "table", "measured"])
def test_a_verification_stays_if_an_input_is_missing(missing: str, run: Path, tmp_path: Path) -> None:
    model, nothing = tmp_path / "model.onnx", tmp_path / "nothing.jsonl"
    shutil.copy(run / "exports" / "model.onnx", model)
    api.verify([model])
    before = (tmp_path / "model.onnx.verification.json").read_bytes()
    targets = [model, tmp_path / "other.onnx"] if missing == "target" else [model]
    with pytest.raises(DmaskError, match=r"no file '.*'|is not a run folder"):
        api.verify(
            targets,
            run=nothing if missing == "run" else None,
            tables=[nothing] if missing == "table" else [],
            settings=api.VerifySettings(measured=[nothing] if missing == "measured" else []),
        )
    assert (tmp_path / "model.onnx.verification.json").read_bytes() == before


def test_reports_are_checked_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A foreign file, a folder and one path for both are refused; an empty file and an earlier report are replaced."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "exports" / "model.onnx", "model.onnx")
    Path("mine.md").write_text("mine")
    Path("empty.md").touch()
    for options, message in (
        (["--markdown", "mine.md"], "'mine.md' exists and is not a report of dmask verify --markdown"),
        (["--junit", "mine.md"], "'mine.md' exists and is not a report of dmask verify --junit"),
        (["--markdown", "."], "'.' is a folder"),
        (["--markdown", "mine.md/a.md"], "mine.md' is not a folder"),
        (["--markdown", "a.md", "--junit", "./a.md"], "--markdown and --junit both name 'a.md'"),
    ):
        assert exit_status_of_command(["verify", "model.onnx", *options]) == 2
        assert message in capsys.readouterr().err
    assert Path("mine.md").read_text() == "mine"
    assert not Path("model.onnx.verification.json").exists()
    for _ in range(2):
        assert exit_status_of_command(["verify", "model.onnx", "--markdown", "empty.md", "--junit", "new/a.xml"]) == 1
        assert Path("empty.md").read_text().startswith("<!-- written by dmask verify -->\n### Child `")


def with_budgets(run: Path, copy: Path, *budgets: BudgetRecord, precision: Precision | None = None) -> Path:
    """A copy of the run with these budgets."""
    shutil.copytree(run, copy)
    record = RunFolder(copy).record()
    record.model_copy(update={"budgets": budgets, "precision": precision}).write(copy / "run.json")
    return copy


def test_every_budget_has_a_line_by_its_name(run: Path, data: str, tmp_path: Path) -> None:
    """Each cost is computed by its own model; two latencies with the same value give two lines."""
    costs = {cost.name: cost.estimate(CHILD).value for cost in (Macs(), Params(), PeakActivationBytes())}
    copy = with_budgets(
        run, tmp_path / "run",
        BudgetRecord(cost="macs", limit=costs["macs"] - 1, unit="macs"),
        BudgetRecord(cost="params", limit=costs["params"], unit="params"),
        BudgetRecord(cost="weight_bytes", limit=1000, unit="bytes"),
        BudgetRecord(cost="peak_activation_bytes", limit=costs["peak_activation_bytes"] / 2, unit="bytes"),
        BudgetRecord(cost="latency@pixel", limit=8, unit="ms"),
        BudgetRecord(cost="latency@galaxy", limit=8, unit="ms"),
        BudgetRecord(cost="depth", limit=5, unit="blocks", custom=True),
    )  # fmt: skip
    verification = api.verify([copy / "exports" / "model.onnx"], data=data)
    found = lines(verification, "run")
    assert {name: check.verdict for name, check in found.items()} == {
        "macs budget": "failed",
        "params budget": "passed",
        "weight_bytes budget": "failed",
        "peak_activation_bytes budget": "failed",
        "latency@pixel budget": "not verified",
        "latency@galaxy budget": "not verified",
        "depth budget": "not verified",
    }
    macs = found["macs budget"]
    assert (macs.predicted, macs.measured, macs.allowed) == (costs["macs"] - 1, costs["macs"], "at most +0")
    assert macs.note == "over by 1 macs"
    assert found["latency@pixel budget"].note == "its table was not found; give --table"
    assert found["depth budget"].note == "'depth' is a custom cost: give its class with --cost module:Class"
    assert api.verify(copy, data=data).checks[-7:] == verification.checks[-7:]  # the whole run has the same lines


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bytes_each"), [(None, 4), ("fp32", 4), ("fp16", 2)])
def test_weight_bytes_are_counted_in_the_precision_of_the_search(
    precision: Precision | None, bytes_each: int, run: Path, data: str, tmp_path: Path
) -> None:
    """After folding there is a bias for each output channel, with the size of a weight."""
    layers = [layer for block, size in CHILD.located_blocks() for layer in block_layers(block, size)]
    expected = bytes_each * sum(layer.params + layer.out_width for layer in layers)
    budget = BudgetRecord(cost="weight_bytes", limit=expected, unit="bytes")
    copy = with_budgets(run, tmp_path / "run", budget, precision=precision)
    check = lines(api.verify([copy / "exports" / "model.onnx"], data=data), "run")["weight_bytes budget"]
    assert (check.measured, check.verdict, check.note) == (expected, "passed", f"as {precision or 'fp32'}")


class Depth(AdditiveCost):
    name, unit = "depth", "blocks"

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        return 0.0 if block.kind == "skip" else 1.0


class CheapMacs(Depth):
    name = "macs"


@pytest.mark.slow
@pytest.mark.parametrize("cost", [Depth(), CheapMacs()])
def test_a_custom_cost_is_verified_with_its_class_alone(cost: Depth, run: Path, data: str, tmp_path: Path) -> None:
    """A custom cost may have the name of a built-in one; run.json says that it was the user's."""
    depth = sum(block.kind != "skip" for block in CHILD.blocks)
    budget = BudgetRecord(cost=cost.name, limit=depth - 1, unit="blocks", custom=True)
    copy = with_budgets(run, tmp_path / "run", budget)
    target = [copy / "exports" / "model.onnx"]
    name = f"{cost.name} budget"
    assert lines(api.verify(target, data=data), "run")[name].verdict == "not verified"
    allowed = api.VerifySettings(allow_unverified=[cost.name])
    assert api.verify(target, data=data, settings=allowed).passed
    check = lines(api.verify(target, data=data, costs=[cost]), "run")[name]
    assert (check.verdict, check.measured, check.note) == ("failed", depth, "over by 1 blocks")
    with pytest.raises(
        DmaskError, match=rf"--cost gives '{cost.name}', which is not a budget of this run: it has none"
    ):
        api.verify(run, data=data, costs=[cost])


def test_the_budget_of_a_table_is_found_by_name(tmp_path: Path) -> None:
    record = RunRecord(
        created="now", versions={}, preprocessing=Preprocessing(mean=(0,), std=(1,)), class_names=("a", "b"),
        budgets=tuple(
            BudgetRecord(cost=name, limit=limit, unit="ms")
            for name, limit in (("latency", 8), ("latency@pixel", 9), ("latency@galaxy", 8))
        ),
    )  # fmt: skip
    assert table_budgets(record, "pixel", "latency@pixel", only_table=False) == {"latency@pixel": 9}
    assert table_budgets(record, "pixel", "latency@pixel", only_table=True) == {"latency": 8, "latency@pixel": 9}
    assert table_budgets(record, "other", "latency", only_table=False) == {"latency": 8}


def test_a_latency_budget_without_an_artifact_is_judged_by_its_prediction(run: Path) -> None:
    prediction = LatencyPrediction(
        ms=9, spread_ms=0, table_digest="t", device="d", runtime="r", precision="fp32", threads=1
    )
    predicted = PredictedLatency("latency", "litert", "fp32", prediction, {"latency": 8, "latency@t": 10}, "")
    budgets = tuple(BudgetRecord(cost=name, limit=limit, unit="ms") for name, limit in predicted.budgets.items())
    record = RunFolder(run).record().model_copy(update={"budgets": budgets})
    over, within = budget_checks(record, CHILD, (), [predicted], {"onnx"}, ())
    assert (over.verdict, over.note) == ("failed", "the table predicts 9 ms, over the budget")
    assert (within.verdict, within.note) == ("not verified", "no litert artifact to measure")


def test_a_run_of_the_version_before_is_read(run: Path, tmp_path: Path) -> None:
    content = json.loads((run / "run.json").read_text())
    del content["precision"]
    content |= {"version": 1, "budgets": [{"cost": "macs", "limit": 1.0, "unit": "macs"}]}
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert RunRecord.read(tmp_path / "run.json").budgets == (BudgetRecord(cost="macs", limit=1.0, unit="macs"),)


def test_class_names_that_do_not_fit_the_child_are_refused_by_every_command(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    content = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(content | {"class_names": ["a"]}))
    for command in (api.status, api.verify, api.write_card, lambda run: api.report(run, tmp_path / "report.html")):
        with pytest.raises(DmaskError, match=r"run\.json' has 1 class names, but child\.json has 2 classes"):
            command(copy)


@pytest.mark.parametrize("broken", ["dmask_mobile.api.describing._write", "dmask_mobile.api.reporting.report"])
def test_a_fault_in_card_or_report_does_not_change_the_result(
    broken: str, run: Path, data: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(broken, fail)
    assert api.verify(run, data=data).checks
    assert "a fault of dmask-mobile: KeyError: 'x'" in caplog.text


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_a_tolerance_of_budgets_is_a_share(tolerance: float, run: Path) -> None:
    with pytest.raises(DmaskError, match="--budget-tolerance must be a share of at least 0 and below 1"):
        api.verify(run, settings=api.VerifySettings(budget_tolerance=tolerance))


def test_leave_must_name_what_it_is_for(run: Path, data: str) -> None:
    with pytest.raises(DmaskError, match="needs a quantity"):
        api.verify(run, data=data, settings=api.VerifySettings(allow_unverified=[""]))


def test_nothing_to_export(run: Path) -> None:
    with pytest.raises(DmaskError, match="nothing to export"):
        api.export(run, [], ["fp32"])
