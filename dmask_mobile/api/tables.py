"""Measures and evaluates latency tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, AnySpace, as_path, as_space, as_tuple
from dmask_mobile.cost_names import our_package
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from dmask_mobile.records.artifact import Precision
    from dmask_mobile.records.child import ChildSpec
    from latency_tables.devices.options import DeviceOptions
    from latency_tables.profiling.judging import Evaluation
    from latency_tables.profiling.settings import ProfileSettings
    from latency_tables.table.table import LatencyTable


def load_table(table: AnyPath) -> LatencyTable:
    """The latency table in a file, or the shipped table of this name.

    >>> table = dm.load_table("epyc-onnxruntime-1thread-demo")
    >>> table.head.runtime, len(table.blocks), len(table.networks)
    ('onnxruntime', 164, 12)

    Raises:
        DmaskError: for a missing file, another format or version, or a truncated or broken line.
    """
    our_package("latency_tables")
    from latency_tables.table.table import LatencyTable

    return LatencyTable.read(as_path(table))


def profile(
    space: AnySpace,
    table: AnyPath,
    *,
    devices: DeviceOptions | Sequence[DeviceOptions] = (),
    runtime: str = "onnxruntime",
    threads: int = 1,
    precision: Precision = "fp32",
    delegate: str = "cpu",
    settings: ProfileSettings | None = None,
    like: AnyPath | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """Measures the latency table of ``space``; continues with what ``table`` already contains.

    >>> table = dm.profile("demo", "table.jsonl", settings=dm.ProfileSettings(minutes=0.3, rounds=1))
    >>> table.head.runtime, len(table.blocks) > 0
    ('onnxruntime', True)

    Args:
        space: the space, the name of a shipped space, or a file.
        table: the file of the table.
        devices: how the device is reached, or several identical devices that share the work; none means this machine.
        runtime: the runtime of the models.
        threads: the number of threads of the runtime.
        precision: the precision of the models.
        delegate: the backend of the runtime.
        settings: the length and the number of rounds.
        like: a table of another device or runtime. Predictions begin with it, so that a minute of measuring is enough.
        progress: is called while converting and measuring.

    Raises:
        DmaskError: for a device or runtime that is absent or unknown, or if ``table`` is not a table or was measured
            with another device, runtime or setting.
    """
    our_package("latency_tables")
    from latency_tables.devices.options import DeviceOptions
    from latency_tables.profiling.profile import profile_space
    from latency_tables.profiling.settings import ProfileSettings
    from latency_tables.profiling.setup import setup_for
    from latency_tables.table.writer import check_appendable

    table = as_path(table)
    check_appendable(table)  # before any device is used
    setup = setup_for(as_tuple(devices) or [DeviceOptions()], runtime, threads, precision, delegate)
    prior = None if like is None else load_table(like)
    return profile_space(as_space(space), setup, settings or ProfileSettings(), table, progress, prior)


def profile_missing(
    child: ChildSpec,
    table: AnyPath,
    *,
    at: str | None = None,
    settings: ProfileSettings | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """Measures the blocks of ``child`` that ``table`` lacks, on the table's device, with its runtime and settings.

    ``at``: how the device is reached now (``local``, ``ssh:HOST``, ``adb[:SERIAL]``), if this has changed.

    Raises:
        DmaskError: if there is no such file, or the device is absent, is a different one, or has another runtime
            version.
    """
    our_package("latency_tables")
    from latency_tables.profiling.profile import profile_child
    from latency_tables.profiling.settings import ProfileSettings
    from latency_tables.profiling.setup import setup_of
    from latency_tables.table.table import LatencyTable

    table = _own_table(as_path(table))
    setup = setup_of(LatencyTable.read(table), at)
    return profile_child(child, setup, settings or ProfileSettings(), table, progress)


def check_device(table: AnyPath, *, at: str | None = None, progress: Progress = silent) -> LatencyTable:
    """Measures the sentinels of ``table`` now; from then on, its predictions are for the current speed of the device.

    ``at``: how the table's device is reached now, if this has changed.

    Raises:
        DmaskError: if there is no such file, or the device is absent or a different one.
    """
    our_package("latency_tables")
    from latency_tables.profiling.table_probe import recheck
    from latency_tables.table.table import LatencyTable

    path = _own_table(as_path(table))
    return recheck(LatencyTable.read(path), path, at, progress)


def _own_table(path: Path) -> Path:
    """The path of a table that can be written to; a shipped table can be read by its name, but not written to.

    Raises:
        DmaskError: if there is no such file.
    """
    if not path.exists():
        raise DmaskError(f"no file '{path}' to measure into", "give the path of a table: dmask profile SPACE -o TABLE")
    return path


def evaluate_table(
    table: AnyPath,
    space: AnySpace,
    *,
    children: int = 100,
    seed: int = 0,
    at: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measures children of ``space`` that are not in ``table``, and returns how well the table predicts them.

    ``at``: how the table's device is reached now, if this has changed.

    Raises:
        DmaskError: if the device is absent, a different one or too busy, or the table cannot predict a child.
    """
    our_package("latency_tables")
    from latency_tables.profiling.evaluate import evaluate, unseen_children
    from latency_tables.table.table import LatencyTable

    read = LatencyTable.read(as_path(table))
    return evaluate(read, unseen_children(read, as_space(space), children, seed), progress, at)
