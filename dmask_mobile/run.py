"""The run folder: where one search keeps everything.

``run.json`` settings, ``search/`` tables, checkpoint, log and result, ``child.json`` the network, ``checkpoints/`` its
weights, ``exports/`` its artifacts, ``verification.json``.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision, Preprocessing
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

RECORDED_PACKAGES = ("dmask-mobile", "torch", "torchvision", "timm", "onnx", "onnxruntime", "coremltools", "numpy")


class BudgetRecord(Record):
    """A cost and the most of it that the child may have. ``custom``: the user brought the cost model."""

    cost: str
    limit: float
    unit: str
    custom: bool = False


class RunRecord(FileRecord):
    """``run.json``: everything that a later command needs to know of the earlier ones.

    ``precision``: what the child was to be exported in when its budgets were set; None where nobody said.
    """

    file_format: ClassVar[str] = "dmask-run"
    file_version: ClassVar[int] = 2  # 1 had no precision, and did not say which costs were custom
    oldest_version: ClassVar[int | None] = 1

    created: str
    versions: dict[str, str]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    data: str | None = None
    space: SearchSpace | None = None
    budgets: tuple[BudgetRecord, ...] = ()
    precision: Precision | None = None
    search_settings: dict[str, Any] | None = None
    train_settings: dict[str, Any] | None = None
    accuracy: float | None = None


class CandidateRecord(Record):
    """One of several children within the budgets, and its accuracy with the supernet's weights."""

    child_digest: str
    choice: Choice
    costs: tuple[float, ...]
    score: float
    accuracy: float


class SearchResultRecord(FileRecord):
    """``search/result.json``: what the gates decided and how the child was derived from them.

    ``expected`` and ``costs`` are in the order of the run's budgets. ``derivation``: ``exact`` (no child within the
    budget scores more), ``bounded`` (none scores more than ``score + gap``) or ``ranked`` (the most accurate of
    ``candidates`` with the supernet's weights, batch norms recalibrated).
    """

    file_format: ClassVar[str] = "dmask-search-result"
    file_version: ClassVar[int] = 2
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
    warnings: tuple[str, ...] = ()


class RunFolder:
    """The paths of a run and its records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_path = path / "run.json"
        self.child_path = path / "child.json"
        self.tables_path = path / "search" / "tables"
        self.search_checkpoint = path / "search" / "checkpoint.pt"
        self.search_result = path / "search" / "result.json"
        self.train_checkpoint = path / "checkpoints" / "train.pt"
        self.weights_path = path / "checkpoints" / "child.safetensors"
        self.exports = path / "exports"
        self.verification_path = path / "verification.json"

    def record(self) -> RunRecord:
        """``run.json``.

        Raises:
            DmaskError: when the folder is no run folder.
        """
        if not self.record_path.exists():
            raise DmaskError(
                f"'{self.path}' is no run folder: it has no run.json", "start one: dmask search ... -o RUN"
            )
        return RunRecord.read(self.record_path)

    def tables(self) -> dict[str, Path]:
        """The latency tables that the search used, by name."""
        return {path.stem: path for path in sorted(self.tables_path.glob("*.jsonl"))}

    def child(self) -> ChildSpec:
        """``child.json``.

        Raises:
            DmaskError: when the search has not derived it yet, or the file is damaged.
        """
        if not self.child_path.exists():
            raise DmaskError(f"'{self.path}' has no child.json yet", "finish the search: dmask search ... -o RUN")
        return ChildSpec.read(self.child_path)


def installed_versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED_PACKAGES}}


def new_run_path(parent: Path, name: str) -> Path:
    """A folder that does not exist yet: ``parent/name-YYYYmmdd-HHMMSS``."""
    stem = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    path = parent / stem
    number = 2
    while path.exists():
        path, number = parent / f"{stem}-{number}", number + 1
    return path
