"""`RunStatus`: the finished steps of a run folder, the next step, and the command for it."""

from __future__ import annotations

import shlex
from typing import Literal

from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.base import Record
from dmask_mobile.records.verification import Verification
from dmask_mobile.report.commands import search_command
from dmask_mobile.report.history import read_history
from dmask_mobile.report.verdicts import headline, ordered, state_of
from dmask_mobile.run import RunFolder, RunRecord

StepName = Literal["search", "train", "export", "verify", "test"]
StepState = Literal["done", "under way", "open", "out of date", "failed", "not verified", "not needed"]


class Step(Record):
    """One step of the chain; ``command`` starts or continues it."""

    name: StepName
    state: StepState
    detail: str
    command: str


class RunStatus(Record):
    """All steps of a run in order; ``next``: the first step that is not done, None if all are done."""

    run: str
    child_digest: str | None
    steps: tuple[Step, ...]
    next: Step | None


def status_of(folder: RunFolder) -> RunStatus:
    """The status of a run folder.

    Raises:
        DmaskError: if it is not a run folder, or one of its files is damaged.
    """
    record = folder.record()
    child = folder.child() if folder.child_path.exists() else None
    steps = (
        _search(folder, record),
        _train(folder, record),
        _export(folder, record),
        _verify(folder),
        _test(folder, record),
    )
    left = (step for step in steps if step.state not in ("done", "not needed"))
    return RunStatus(
        run=str(folder.path), child_digest=child.digest() if child else None, steps=steps, next=next(left, None)
    )


def _step(folder: RunFolder, name: StepName, state: StepState, detail: str, *options: str) -> Step:
    return Step(name=name, state=state, detail=detail, command=shlex.join(["dmask", name, str(folder.path), *options]))


def _search(folder: RunFolder, record: RunRecord) -> Step:
    if record.space is None:
        return Step(name="search", state="not needed", detail="the network was not found by a search", command="")
    result = folder.result() if folder.search_result.exists() else None
    command = search_command(folder, record, result).line
    if result is not None:
        detail = f"child {folder.child().digest()}, {result.derivation}"
        return Step(name="search", state="done", detail=detail, command=command)
    history = read_history(folder.metrics_path, record.space, None, record.search_settings)
    epochs = 0 if history is None else history.num_epochs
    planned = (record.search_settings or {}).get("epochs", "?")
    return Step(name="search", state="under way", detail=f"{epochs} of {planned} epochs", command=command)


def _train(folder: RunFolder, record: RunRecord) -> Step:
    data = () if record.data is not None else ("--data", "DATA")
    if problem := folder.damaged_weights():
        return _step(folder, "train", "failed", problem, *data)
    if folder.weights_path.exists() and record.train_settings is not None:
        accuracy = "" if record.accuracy is None else f"accuracy {record.accuracy:.2%} on the validation images"
        return _step(folder, "train", "done", accuracy, *data)
    if folder.train_checkpoint.exists():
        return _step(folder, "train", "under way", "it continues where it stopped", *data)
    detail = "the weights are random" if folder.weights_path.exists() else ""
    return _step(folder, "train", "open", detail, *data)


def _export(folder: RunFolder, record: RunRecord) -> Step:
    artifacts = folder.artifacts()
    labels = ", ".join(artifact.label for artifact in artifacts)
    if not artifacts:
        return _step(folder, "export", "open", "")
    stale = [a.label for a in artifacts if record.weights_sha256 not in (None, a.weights_digest)]
    if stale:
        return _step(folder, "export", "out of date", f"{', '.join(stale)}: made from earlier weights")
    return _step(folder, "export", "done", labels)


def _verify(folder: RunFolder) -> Step:
    if not folder.verification_path.exists():
        return _step(folder, "verify", "open", "")
    verification = Verification.read(folder.verification_path)
    known = {check.artifact for check in verification.checks}
    missing = [artifact.label for artifact in folder.artifacts() if artifact.label not in known]
    if missing or (folder.child_path.exists() and folder.child().digest() != verification.child_digest):
        detail = f"it lacks {', '.join(missing)}" if missing else "it is about another child"
        return _step(folder, "verify", "out of date", detail)
    state = state_of(verification, verification.checks)
    detail = headline(state, ordered(verification)[1])
    if verification.passed:
        return _step(folder, "verify", "done", detail)
    return _step(folder, "verify", "failed" if state == "failed" else "not verified", detail)


def _test(folder: RunFolder, record: RunRecord) -> Step:
    if not folder.test_path.exists():
        return _step(folder, "test", "open", "opens the test split (once)")
    found = AccuracyRecord.read(folder.test_path)
    if record.weights_sha256 not in (None, found.weights_sha256):
        return _step(folder, "test", "out of date", "measured with earlier weights")
    return _step(folder, "test", "done", f"accuracy {found.accuracy:.2%} on {found.num_images:,} {found.split} images")
