"""`Run`: the content of a run folder as objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, as_path
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.verification import Verification
from dmask_mobile.run import RunFolder

if TYPE_CHECKING:
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.records.space import SearchSpace
    from dmask_mobile.run import BudgetRecord, RunRecord, SearchResultRecord
    from latency_tables.table.table import LatencyTable


class Run(os.PathLike[str]):
    """A run folder: the results of the finished steps.

    Every function that takes a run accepts its path or this object. Nothing is kept in memory: each property reads the
    folder, so it always gives the current content.

    >>> run = dm.Run("runs/a")
    >>> run.child.resolution, len(run.child.blocks) > 3
    (32, True)
    >>> {budget.cost: budget.limit for budget in run.budgets}
    {'macs': 1500000.0}
    >>> abs(run.accuracy - run.validation.accuracy) < 1e-6
    True
    >>> sum(weight.numel() for weight in run.network().parameters()) > 1000
    True
    >>> [artifact.label for artifact in run.artifacts], run.verification.passed
    (['coreml', 'onnx'], True)

    Args:
        path: the folder; properties raise a `DmaskError` if it is not a run folder.
    """

    def __init__(self, path: AnyPath) -> None:
        self._folder = RunFolder(as_path(path))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def record(self) -> RunRecord:
        """``run.json``: settings, data and versions."""
        return self._folder.record()

    @property
    def space(self) -> SearchSpace | None:
        """The space that was searched; None for a network that was not found by a search."""
        return self.record.space

    @property
    def budgets(self) -> tuple[BudgetRecord, ...]:
        """The budgets of the search."""
        return self.record.budgets

    @property
    def tables(self) -> dict[str, LatencyTable]:
        """The latency tables of the search, by name."""
        from dmask_mobile.api.tables import load_table

        return {name: load_table(path) for name, path in self._folder.tables().items()}

    @property
    def search_result(self) -> SearchResultRecord:
        """The decisions of the gates, and the costs of the child.

        Raises:
            DmaskError: if no search has finished in this run.
        """
        return self._folder.result()

    @property
    def child(self) -> ChildSpec:
        """The network that the search found, or that the run was started with.

        Raises:
            DmaskError: if the search has not ended yet.
        """
        return self._folder.child()

    @property
    def accuracy(self) -> float | None:
        """Top-1 accuracy of the trained child on the validation images, in 0..1; None before it is trained."""
        return self.record.accuracy

    @property
    def validation(self) -> AccuracyRecord | None:
        """The accuracy of each class on the validation images; None before the child is trained."""
        return AccuracyRecord.read(self._folder.val_path) if self._folder.val_path.exists() else None

    @property
    def test(self) -> AccuracyRecord | None:
        """The accuracy on the test images; None before `measure_accuracy` has opened them."""
        return AccuracyRecord.read(self._folder.test_path) if self._folder.test_path.exists() else None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The exported models; their files are in the folder ``exports`` of the run."""
        return self._folder.artifacts()

    @property
    def verification(self) -> Verification | None:
        """The result of the last verification of the whole run; None before the first one."""
        path = self._folder.verification_path
        return Verification.read(path) if path.exists() else None

    def network(self) -> ChildNetwork:
        """The child with its trained weights, in evaluation mode.

        It maps images (N, C, R, R), scaled to 0..1 and then normalized as in `record`, to logits (N, classes).

        Raises:
            DmaskError: if the run has no weights, or the file is damaged.
        """
        from dmask_mobile.api.run_data import trained_network

        return trained_network(self._folder).eval()
