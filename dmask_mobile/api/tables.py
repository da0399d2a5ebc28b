"""Latency tables: measured, judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.cost_names import our_package
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.space import SearchSpace

if TYPE_CHECKING:
    from dmask_mobile.records.child import ChildSpec
    from latency_tables.evaluate import Evaluation
    from latency_tables.profile import ProfileSettings
    from latency_tables.table import LatencyTable


def profile(
    space: SearchSpace,
    table: Path,
    *,
    runtime: str = "onnxruntime",
    settings: ProfileSettings | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """The latency table of ``space`` on this machine; goes on with what ``table`` already holds.

    Raises:
        DmaskError: when ``table`` was measured on another device or with another runtime.
    """
    our_package("latency_tables")
    from latency_tables.devices.local import LocalDevice
    from latency_tables.profile import ProfileSettings, profile_space
    from latency_tables.runtimes.registry import runtime_named
    from latency_tables.setup import Setup

    settings = settings or ProfileSettings()
    setup = Setup(LocalDevice(), runtime_named(runtime), settings.threads)
    return profile_space(space, setup, settings, table, progress)


def profile_missing(
    child: ChildSpec, table: Path, *, settings: ProfileSettings | None = None, progress: Progress = silent
) -> LatencyTable:
    """Measures the blocks of ``child`` that ``table`` lacks, with the table's runtime and threads.

    Raises:
        DmaskError: when ``table`` was measured on another device or with another runtime version.
    """
    our_package("latency_tables")
    from latency_tables.profile import ProfileSettings, profile_child
    from latency_tables.setup import setup_of
    from latency_tables.table import LatencyTable

    setup = setup_of(LatencyTable.read(table))
    return profile_child(child, setup, settings or ProfileSettings(), table, progress)


def evaluate_table(
    table: Path, space: SearchSpace, *, children: int = 100, seed: int = 0, progress: Progress = silent
) -> Evaluation:
    """Measures children of ``space`` that ``table`` never saw, and says how well it predicts them.

    Raises:
        DmaskError: when ``table`` was measured on another device or cannot predict a child.
    """
    our_package("latency_tables")
    from latency_tables.evaluate import evaluate, unseen_children
    from latency_tables.table import LatencyTable

    read = LatencyTable.read(table)
    return evaluate(read, unseen_children(read, space, children, seed), progress)
