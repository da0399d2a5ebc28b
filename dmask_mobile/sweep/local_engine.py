"""The engine that runs the jobs of a sweep on this machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.ranks import num_cores
from dmask_mobile.sweep.job import SECONDS_BETWEEN_LOOKS, HaltedError, Job, run_job


class Ended(Protocol):
    """A function that is called in the main thread after each job."""

    def __call__(self, job: Job, reason: str | None) -> None:
        """``reason``: why the job failed; None if it is done."""
        ...


class _Workers:
    """Threads that take jobs from one queue and put their results into another.

    They are daemon threads: a second signal ends this process without waiting for them, and the processes that they
    started end by themselves.
    """

    def __init__(self, jobs: Sequence[Job], num_at_once: int) -> None:
        self.waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self.waiting.put(job)
        self.outcomes: queue.SimpleQueue[tuple[Job, str | Exception | None]] = queue.SimpleQueue()
        self.halted = threading.Event()
        count = min(num_at_once, len(jobs))
        self.threads_each = max(1, num_cores() // max(1, count))
        self.workers = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for worker in self.workers:
            worker.start()

    def _work(self) -> None:
        while not self.halted.is_set():
            try:
                job = self.waiting.get_nowait()
            except queue.Empty:
                return
            outcome: str | Exception | None
            try:
                outcome = run_job(job, self.threads_each, self.halted.is_set)
            except HaltedError:
                return
            except Exception as error:  # the main thread raises it again
                outcome = error
            self.outcomes.put((job, outcome))

    def halt(self) -> None:
        """Stops all child processes and waits until they have ended; a signal still reaches the main thread."""
        self.halted.set()
        for worker in self.workers:
            while worker.is_alive():
                worker.join(SECONDS_BETWEEN_LOOKS)


def run_locally(jobs: Sequence[Job], num_at_once: int, ended: Ended) -> None:
    """Runs all jobs on this machine, ``num_at_once`` at a time; each gets its share of the cores."""
    with stop_signals() as stopped_by:
        workers = _Workers(jobs, num_at_once)
        try:
            for _ in jobs:
                job, outcome = _next_outcome(workers, stopped_by)
                if isinstance(outcome, Exception):
                    raise outcome
                ended(job, outcome)
        except Exception:
            workers.halt()
            raise


def _next_outcome(workers: _Workers, stopped_by: Callable[[], int | None]) -> tuple[Job, str | Exception | None]:
    while True:
        if number := stopped_by():
            raise StoppedError(number, "sweep")
        try:
            return workers.outcomes.get(timeout=SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            continue
