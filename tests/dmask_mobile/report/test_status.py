from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dmask_mobile import api
from dmask_mobile.errors import DmaskError
from dmask_mobile.report.status import RunStatus
from dmask_mobile.run import RunFolder
from tests.dmask_mobile.report.factory import EPOCHS, searched_run, trained_run, whole_run


def states(found: RunStatus) -> dict[str, str]:
    return {step.name: step.state for step in found.steps}


def next_step(found: RunStatus) -> str:
    assert found.next is not None
    return found.next.name


def test_each_step_leads_to_the_next(tmp_path: Path) -> None:
    found = api.status(searched_run(tmp_path / "a").path)
    assert states(found) == {"search": "done", "train": "open", "export": "open", "verify": "open", "test": "open"}
    assert found.next is not None
    assert found.next.command == f"dmask train {tmp_path}/a"
    assert next_step(api.status(trained_run(tmp_path / "b").path)) == "export"
    whole = api.status(whole_run(tmp_path / "c").path)
    assert states(whole)["verify"] == "failed"
    folder = RunFolder(tmp_path / "c")
    content = json.loads(folder.verification_path.read_text())
    content["checks"] = [check for check in content["checks"] if check["verdict"] != "failed"]
    folder.verification_path.write_text(json.dumps(content))
    assert states(api.status(folder.path))["verify"] == "not verified"
    assert "1 failed" in next(step.detail for step in whole.steps if step.name == "verify")


def test_a_search_under_way(tmp_path: Path) -> None:
    folder = searched_run(tmp_path / "run")
    folder.search_result.unlink()
    folder.child_path.unlink()
    folder.metrics_path.write_text(folder.metrics_path.read_text().splitlines()[0] + "\n")
    found = api.status(folder.path)
    assert found.child_digest is None
    assert found.next is not None
    assert (found.next.state, found.next.detail) == ("under way", f"1 of {EPOCHS} epochs")
    words = found.next.command.split()
    assert words[:2] == ["dmask", "search"]
    assert words[words.index("--table") + 1] == str(folder.tables_path / "table.jsonl")


def test_what_is_of_earlier_weights_is_out_of_date(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run", passing=True)
    content = json.loads(folder.record_path.read_text())
    folder.weights_path.write_bytes(b"new weights")
    digest = hashlib.sha256(b"new weights").hexdigest()
    folder.record_path.write_text(json.dumps(content | {"weights_sha256": digest}))
    found = api.status(folder.path)
    assert states(found)["export"] == states(found)["test"] == "out of date"
    assert next_step(found) == "export"


def test_damaged_weights_are_told_and_their_accuracy_is_not_published(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run")
    folder.weights_path.write_bytes(b"weighty")
    found = api.status(folder.path)
    assert states(found)["train"] == "failed"
    assert found.next is not None
    assert (found.next.name, found.next.command) == ("train", f"dmask train {folder.path}")
    assert "child.safetensors' is damaged or was replaced: its checksum differs" in found.next.detail
    for publish in (api.write_card, lambda run: api.report(run, tmp_path / "report.html")):
        with pytest.raises(
            DmaskError, match=r"child\.safetensors' is damaged or was replaced: .*; restore the file, or"
        ):
            publish(folder.path)
    assert not (folder.path / "README.md").exists()


def test_a_verification_that_lacks_an_artifact_is_out_of_date(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "run", passing=True)
    assert states(api.status(folder.path))["verify"] == "out of date"  # it passed without the second artifact
    (folder.exports / "coreml-int8.artifact.json").unlink()
    found = api.status(folder.path)
    assert states(found) == dict.fromkeys(("search", "train", "export", "verify", "test"), "done")
    assert found.next is None


def test_a_network_from_elsewhere_needs_no_search(tmp_path: Path) -> None:
    folder: RunFolder = searched_run(tmp_path / "run")
    content = json.loads(folder.record_path.read_text())
    folder.record_path.write_text(json.dumps(content | {"space": None, "budgets": []}))
    shutil.rmtree(folder.search_result.parent)
    assert states(api.status(folder.path))["search"] == "not needed"
