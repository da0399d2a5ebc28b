"""The engine that runs the jobs of a sweep as Ray tasks, on this machine or on a cluster."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.interruption import SIGNALS, StoppedError, stop_signals
from dmask_mobile.ranks import num_cores
from dmask_mobile.sweep.job import SECONDS_BETWEEN_LOOKS, Job, run_job
from dmask_mobile.sweep.local_engine import Ended

WORKER_RETRIES = 3  # times that a task is started again after its worker process or machine died
OBJECT_STORE_BYTES = 80 * 2**20  # close to Ray's minimum; jobs and results are small
CANCEL_ATTEMPTS, SECONDS_TO_CANCEL = 4, 30.0
LOOPBACK = "127.0.0.1"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # On systems where clusters are possible, Ray listens on all interfaces, even if it is given one address. Ray reads
    # this variable when it is imported (ray/_private/ray_constants.py, ENABLE_RAY_CLUSTER).
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Without it, Ray hides the GPUs of this machine from tasks that request none.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Share(NamedTuple):
    """The resources that one task requests."""

    num_cpus: int
    num_gpus: float


def run_on_ray(jobs: Sequence[Job], num_at_once: int, ended: Ended) -> None:
    """Runs all jobs as Ray tasks, ``num_at_once`` at a time.

    It uses the cluster in RAY_ADDRESS or the one that Python is connected to. Without a cluster, it starts Ray on this
    machine, listening only on the loopback interface.

    Raises:
        DmaskError: if Ray is not installed or does not start.
    """
    with _connected(num_at_once) as ray, stop_signals() as stopped_by:
        share = share_of([node["Resources"] for node in ray.nodes() if node["Alive"]], num_at_once)
        options = {"num_cpus": share.num_cpus, "num_gpus": share.num_gpus, "max_retries": WORKER_RETRIES}
        task = ray.remote(**options)(run_job)
        left = {task.options(name=job.name).remote(job, share.num_cpus): job for job in jobs}
        while left:
            ready, _ = ray.wait(list(left), timeout=SECONDS_BETWEEN_LOOKS)
            if number := stopped_by():
                _cancel(ray, list(left))
                raise StoppedError(number, "sweep")
            for reference in ready:
                ended(left.pop(reference), _outcome(ray, reference))


def share_of(nodes: Sequence[Mapping[str, float]], num_at_once: int) -> Share:
    """The CPUs and GPUs of each task, so that ``num_at_once`` tasks fit on machines with these resources.

    >>> share_of([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], 4)
    Share(num_cpus=4, num_gpus=0.5)
    """
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    most = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    of_gpus = gpus / num_at_once
    return Share(max(1, int(min(cpus / num_at_once, most))), of_gpus if of_gpus < 1 else 1.0)


def _outcome(ray: Any, reference: Any) -> str | None:
    try:
        reason: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"Ray gave up: {shown(' '.join(str(error).split()))}"
    return reason


def _cancel(ray: Any, references: list[Any]) -> None:
    """Interrupts tasks and waits until they have ended: their child processes keep their checkpoints first.

    An interrupt to a busy worker can be lost, so it is sent again after a while; finally the worker is ended. Then the
    stdin of its child process closes, and the child process also stops properly.
    """
    for attempt in range(CANCEL_ATTEMPTS):
        for reference in references:
            ray.cancel(reference, force=attempt == CANCEL_ATTEMPTS - 1)
        _, references = ray.wait(references, num_returns=len(references), timeout=SECONDS_TO_CANCEL)
        if not references:
            return


@contextmanager
def _connected(num_at_once: int) -> Iterator[Any]:
    """The module ``ray``, connected; everything that was started for it ends with the ``with`` block."""
    is_local = not os.environ.get("RAY_ADDRESS")
    if is_local:
        os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    try:
        import ray
    except ImportError as error:
        raise DmaskError("--engine ray needs the package 'ray'", "pip install 'dmask-mobile[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    with redirect_stdout(sys.stderr):  # Ray reports dead workers on stdout, which is only for results
        yield from _own_connection(ray, num_at_once, is_local)


def _own_connection(ray: Any, num_at_once: int, is_local: bool) -> Iterator[Any]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        if is_local:
            _start(ray, num_at_once)
        else:
            ray.init(log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError, ConnectionError) as error:
        raise DmaskError(
            f"Ray does not start: {shown(' '.join(str(error).split()))}", "use --engine local, or correct RAY_ADDRESS"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray replaces the handler of SIGTERM
            signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, num_at_once: int) -> None:
    """Starts Ray on this machine."""
    ray.init(
        address="local",
        num_cpus=max(num_cores(), num_at_once),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address=LOOPBACK,
    )
    if (listens_on := ray.util.get_node_ip_address()) != LOOPBACK:
        ray.shutdown()
        raise DmaskError(
            f"a local Ray must listen only on {LOOPBACK}, but this one listens on {listens_on}",
            "start the sweep before anything imports ray",
        )
