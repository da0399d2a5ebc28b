"""An `Engine` runs the jobs of a sweep; this finds it by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dmask_mobile.records.setting_names import EngineName
from dmask_mobile.sweep.job import Job
from dmask_mobile.sweep.local_engine import Ended, run_locally
from dmask_mobile.sweep.ray_engine import run_on_ray


class Engine(Protocol):
    """Runs jobs with `dmask_mobile.sweep.job.run_job`, several at once."""

    def __call__(self, jobs: Sequence[Job], num_at_once: int, ended: Ended) -> None:
        """Runs all jobs, ``num_at_once`` at a time, and calls ``ended`` after each one.

        Raises:
            StoppedError: after SIGTERM or Ctrl-C, when all child processes have written their checkpoints and ended.
        """
        ...


ENGINES: dict[EngineName, Engine] = {"local": run_locally, "ray": run_on_ray}
