"""The run folder, which contains all files of one run.

``run.json``: settings; ``search/``: tables, checkpoint, log and result; ``child.json``: the network; ``checkpoints/``:
its weights; ``exports/``: its artifacts; ``verification.json``; and ``report.html``, which shows everything.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.files import LOCK_NAME, locked
from dmask_mobile.records.artifact import Artifact, ModelFormat, Precision, Preprocessing, hash_path
from dmask_mobile.records.base import FileRecord, Record, remove_stale_temporaries
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.names import ClassNames
from dmask_mobile.records.space import SearchSpace

RECORDED_PACKAGES = ("dmask-mobile", "torch", "torchvision", "timm", "onnx", "onnxruntime", "coremltools", "numpy")

MAX_SUM_ERROR = 1e-3  # of probabilities that were written as decimal numbers

_RESTORE = "restore the files of one search, or search again: dmask search ... --restart"
_RESTORE_RUN = "restore the files of one run"
TRIALS_NAME = "trials"  # the folder beside the checkpoint of a search, for the checkpoints of its trials


class BudgetRecord(Record):
    """A cost and the largest value of it that the child may have. ``custom``: whether it is the user's cost model."""

    cost: str
    limit: PositiveFloat
    unit: str
    custom: bool = False


class RunRecord(FileRecord):
    """``run.json``: everything that a later command needs to know about the earlier ones.

    ``data``: the text for the data, with absolute paths. ``data_digest``: the digest of its content. ``data_notes``:
    facts about reading that a user must know. ``precision``: the precision of the later export, as set with the
    budgets; None if it was not set. ``accuracy``: top-1 accuracy in 0..1 of the trained child on the validation images.
    ``compared``: the accuracies of the plain weights and of their moving average; the better weights were kept.
    ``trained_on``: device, number format and number of processes. ``weights_sha256``: the SHA-256 of
    ``checkpoints/child.safetensors``, so that a replaced file is detected.
    """

    file_format: ClassVar[str] = "dmask-run"
    file_version: ClassVar[int] = (
        2  # version 1 had no precision, no checksum, no digest of the data and no mark of custom costs
    )
    oldest_version: ClassVar[int | None] = 1

    created: str
    versions: dict[str, str]
    preprocessing: Preprocessing
    class_names: ClassNames
    data: str | None = None
    data_digest: str | None = None
    data_options: DataOptions = DataOptions()
    data_notes: tuple[str, ...] = ()
    space: SearchSpace | None = None
    budgets: tuple[BudgetRecord, ...] = ()
    precision: Precision | None = None
    search_settings: dict[str, Any] | None = None
    train_settings: dict[str, Any] | None = None
    trained_on: dict[str, str] = Field(default_factory=dict)
    accuracy: float | None = Field(default=None, ge=0, le=1)
    compared: dict[str, float] = Field(default_factory=dict)
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        if self.space is not None and len(self.class_names) != self.space.classes:
            raise ValueError(f"{len(self.class_names)} class names for the {self.space.classes} classes of the space")
        costs = [budget.cost for budget in self.budgets]
        if len(set(costs)) < len(costs):
            twice = next(cost for cost in costs if costs.count(cost) > 1)
            raise ValueError(f"it has two budgets for '{shown(twice)}'")
        return self


class CandidateRecord(Record):
    """One of several children within the budgets, with its results with the supernet's weights.

    ``loss``: its cross-entropy. Older files do not have it, because children were ranked by accuracy on validation
    images. ``exported_accuracy``: that of its export, if it was exported for the ranking.
    """

    child_digest: str
    choice: Choice
    costs: tuple[float, ...]
    score: float
    loss: float | None = None
    accuracy: float = Field(ge=0, le=1)
    exported_accuracy: float | None = Field(default=None, ge=0, le=1)


class TrialRecord(Record):
    """A child that the search trained shortly by itself: its cross-entropy and accuracy on the gates' images."""

    child_digest: str
    choice: Choice
    costs: tuple[float, ...]
    loss: float
    accuracy: float = Field(ge=0, le=1)


class SearchResultRecord(FileRecord):
    """``search/result.json``: the decisions of the gates, and how the child was derived from them.

    ``expected`` and ``costs`` are in the order of the run's budgets. ``derivation``: ``exact`` (no child within the
    budget has a higher score), ``bounded`` (none has a score above ``score + gap``) or ``ranked`` (the best of
    ``candidates`` with the supernet's weights). ``trials`` are new in version 4. ``rank_precision`` and ``rank_format``
    are new in version 5: the precision of the networks whose accuracy ranked the candidates, and the format of their
    exports; None for fp32, which is ranked without an export.
    """

    file_format: ClassVar[str] = "dmask-search-result"
    file_version: ClassVar[int] = 5
    oldest_version: ClassVar[int | None] = 1
    old_names: ClassVar[Mapping[str, str]] = {"lower_bound_relaxed": "floor_dropped"}

    choice: Choice
    decided: dict[str, float]
    probabilities: dict[str, tuple[float, ...]]
    expected: tuple[float, ...]
    entropy: float
    score: float
    costs: tuple[float, ...]
    gap: float
    lower_bound_relaxed: bool
    derivation: Literal["exact", "bounded", "ranked"]
    candidates: tuple[CandidateRecord, ...] = ()
    rank_precision: Precision = "fp32"
    rank_format: ModelFormat | None = None
    trials: tuple[TrialRecord, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def exported_accuracies(self) -> tuple[float, ...]:
        """The accuracies of the candidates that were exported for the ranking, the best first."""
        return tuple(c.exported_accuracy for c in self.candidates if c.exported_accuracy is not None)

    def all_costs(self) -> Iterator[tuple[str, tuple[float, ...]]]:
        """All lists of costs with their names; each has a value for each budget of the run."""
        yield from (("costs", self.costs), ("expected costs", self.expected))
        yield from (("costs of a candidate", candidate.costs) for candidate in self.candidates)
        yield from (("costs of a trial", trial.costs) for trial in self.trials)

    def misfit(self, space: SearchSpace) -> str | None:
        """The reason why this cannot be the result of a search in ``space``; None if it can."""
        options = {decision.name: len(decision.options) for decision in space.decisions}
        choices = self.choice, *(c.choice for c in self.candidates), *(t.choice for t in self.trials)
        for choice in choices:
            if len(choice.indices) != len(options):
                return f"a choice has {len(choice.indices)} decisions, but the space has {len(options)}"
            for (name, count), index in zip(options.items(), choice.indices, strict=True):
                if index >= count:
                    return f"'{name}' has {count} options, but the choice is number {index} (counted from 0)"
        if {name: len(values) for name, values in self.probabilities.items()} != options:
            return "its probabilities belong to other decisions"
        for name, values in self.probabilities.items():
            if min(values) < 0 or abs(sum(values) - 1) > MAX_SUM_ERROR:
                return f"the probabilities of '{name}' must be at least 0 and sum to 1, got {shown(values)}"
        return None


class RunFolder:
    """The paths and the records of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_path = path / "run.json"
        self.child_path = path / "child.json"
        self.tables_path = path / "search" / "tables"
        self.search_checkpoint = path / "search" / "checkpoint.pt"
        self.trials_path = self.search_checkpoint.parent / TRIALS_NAME
        self.metrics_path = path / "search" / "metrics.jsonl"
        self.tensorboard_path = path / "search" / "tensorboard"
        self.original_path = path / "search" / "original.safetensors"
        self.search_result = path / "search" / "result.json"
        self.train_checkpoint = path / "checkpoints" / "train.pt"
        self.weights_path = path / "checkpoints" / "child.safetensors"
        self.exports = path / "exports"
        self.verification_path = path / "verification.json"
        self.val_path = path / "val.json"
        self.test_path = path / "test.json"
        self.test_openings_path = path / "test_openings.json"
        self.report_path = path / "report.html"

    @contextmanager
    def locked(self, doing: str) -> Iterator[None]:
        """A context that locks the folder against other commands; incomplete files of killed commands are removed.

        A folder that is created for this is removed again if nothing was written into it.

        Args:
            doing: the command, such as ``dmask search``, for the message to a command that is refused.

        Raises:
            DmaskError: if another command uses this folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise DmaskError(f"'{self.path}' is not a folder", "give the path of a run folder")
        is_new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.path, doing):
                for folder in (self.path, self.search_checkpoint.parent, self.train_checkpoint.parent, self.exports):
                    remove_stale_temporaries(folder)
                yield
        finally:
            if is_new:
                self._remove_if_empty()

    def _remove_if_empty(self) -> None:
        """Removes a folder that contains only the lock of a refused command."""
        if [path.name for path in self.path.iterdir()] in ([], [LOCK_NAME]):
            (self.path / LOCK_NAME).unlink(missing_ok=True)
            self.path.rmdir()

    def record(self) -> RunRecord:
        """The record in ``run.json``, checked against the child of the run.

        Raises:
            DmaskError: if the folder is not a run folder, or the record is damaged or does not fit the child.
        """
        if not self.record_path.exists():
            raise DmaskError(
                f"'{self.path}' is not a run folder: it has no run.json", "start one: dmask search ... -o RUN"
            )
        record = RunRecord.read(self.record_path)
        if self.child_path.exists():
            child = self.child()
            for found, what, own, kind in (
                (len(record.class_names), "class names", child.classes, "classes"),
                (len(record.preprocessing.mean), "means in preprocessing", child.in_channels, "channels"),
            ):
                if found != own:
                    raise DmaskError(
                        f"'{self.record_path}' has {found} {what}, but child.json has {own} {kind}", _RESTORE_RUN
                    )
        return record

    def damaged_weights(self) -> str | None:
        """The reason why the weights are not those that ``run.json`` describes; None if they are or do not exist."""
        expected = self.record().weights_sha256
        if expected is None or not self.weights_path.is_file() or hash_path(self.weights_path) == expected:
            return None
        return f"'{self.weights_path}' is damaged or was replaced: its checksum differs from the one in run.json"

    def check_weights(self) -> None:
        """Checks that results of the weights may be published.

        Raises:
            DmaskError: if the weights are damaged or were replaced.
        """
        if problem := self.damaged_weights():
            raise DmaskError(problem, f"restore the file, or write it again: dmask train {self.path}")

    def result(self) -> SearchResultRecord:
        """``search/result.json``, checked against the space, the budgets and the child of the run.

        Raises:
            DmaskError: if no search has finished in this run, or the file does not fit the others.
        """
        record = self.record()
        space = record.space
        if space is None or not self.search_result.exists():
            raise DmaskError(f"'{self.path}' contains no finished search", "finish it: dmask search ... -o RUN")
        result = SearchResultRecord.read(self.search_result)
        if problem := result.misfit(space):
            raise DmaskError(f"'{self.search_result}' is not a result for the space of run.json: {problem}", _RESTORE)
        for what, costs in result.all_costs():
            if len(costs) != len(record.budgets):
                raise DmaskError(
                    f"'{self.search_result}' has {len(costs)} {what} for {len(record.budgets)} budgets of run.json",
                    _RESTORE,
                )
        child = space.child(result.choice)
        if child.digest() != self.child().digest():
            raise DmaskError(
                f"'{self.search_result}' has the child {child.digest()}, but child.json has {self.child().digest()}",
                _RESTORE,
            )
        return result

    def tables(self) -> dict[str, Path]:
        """The latency tables that the search used, by name."""
        return {path.stem: path for path in sorted(self.tables_path.glob("*.jsonl"))}

    def artifacts(self) -> tuple[Artifact, ...]:
        """The records of the exported models, in the order of their names."""
        return tuple(Artifact.read(path) for path in sorted(self.exports.glob("*.artifact.json")))

    def child(self) -> ChildSpec:
        """The network in ``child.json``.

        Raises:
            DmaskError: if the search has not derived it yet, or the file is damaged.
        """
        if not self.child_path.exists():
            raise DmaskError(f"'{self.path}' has no child.json yet", "finish the search: dmask search ... -o RUN")
        return ChildSpec.read(self.child_path)


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED_PACKAGES}}


def new_run_path(parent: Path, name: str) -> Path:
    """The path of a new folder: ``parent/name-YYYYmmdd-HHMMSS``."""
    stem = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    path = parent / stem
    number = 2
    while path.exists():
        path, number = parent / f"{stem}-{number}", number + 1
    return path
