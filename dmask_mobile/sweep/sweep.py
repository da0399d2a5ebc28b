"""Runs a sweep: finished runs are skipped, the others are made, and the record and the picture are written."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.setting_names import EngineName
from dmask_mobile.records.sweep import FailedRun, SweepDesign, SweepRecord
from dmask_mobile.sweep.design import PlannedRun, SweepFolder, planned_runs, search_arguments, train_arguments
from dmask_mobile.sweep.engine import ENGINES
from dmask_mobile.sweep.front import sweep_record
from dmask_mobile.sweep.job import Job, Step, dmask_command, is_searched, is_trained
from dmask_mobile.sweep.picture import draw_front

logger = logging.getLogger(__name__)


def job_of(design: SweepDesign, run: PlannedRun, folder: SweepFolder, reading: DataOptions) -> Job:
    """The job that searches and trains one run of the design."""
    search, train = (make(design, run, folder, reading) for make in (search_arguments, train_arguments))
    steps = (
        Step("search", dmask_command(search), is_searched),
        Step("train", dmask_command(train), is_trained),
    )
    return Job(run.name, folder.run_path(run), steps)


def conduct(
    design: SweepDesign,
    folder: SweepFolder,
    units: Mapping[str, str],
    *,
    reading: DataOptions,
    num_at_once: int = 1,
    engine: EngineName = "local",
    progress: Progress = silent,
) -> SweepRecord:
    """The record of the sweep after each run is done or has failed; it is also written after every run.

    Args:
        design: the sweep.
        folder: its folder, which contains the design.
        units: the units of its costs.
        reading: how data is read.
        num_at_once: the number of runs at the same time.
        engine: the engine that runs them.
        progress: is called after each run.

    Raises:
        StoppedError: after SIGTERM or Ctrl-C; everything is saved first.
    """
    jobs = [job_of(design, run, folder, reading) for run in planned_runs(design)]
    waiting = [job for job in jobs if not job.is_done()]
    failed: list[FailedRun] = []

    def ended(job: Job, reason: str | None) -> None:
        if reason is not None:
            logger.warning("%s failed: %s", job.name, reason)
            failed.append(FailedRun(run=job.folder.relative_to(folder.path).as_posix(), reason=reason))
        record = sweep_record(design, folder, units, failed)
        record.write(folder.result_path)
        note = f"{job.name} failed" if reason else f"{job.name} accuracy {_accuracy(record, job.folder.name):.1%}"
        progress("sweep", len(record.points) + len(failed), len(jobs), note)

    progress("sweep", len(jobs) - len(waiting), len(jobs), "done before" if len(waiting) < len(jobs) else "")
    if waiting:
        ENGINES[engine](waiting, num_at_once, ended)
    record = sweep_record(design, folder, units, failed)
    record.write(folder.result_path)
    if record.points:
        draw_front(record, design, folder.pictures)
    return record


def _accuracy(record: SweepRecord, name: str) -> float:
    return next(point.accuracy for point in record.points if point.run.endswith(f"/{name}"))
