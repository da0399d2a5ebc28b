"""Ray on this machine, with two workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.sweep.job import Job
from dmask_mobile.sweep.ray_engine import Share, run_on_ray, share_of
from tests.dmask_mobile.sweep.fake import COUNT, FINISH, UNTIL_STOPPED, Outcomes, fake_job
from tests.processes import wait_until

KILL_WORKER_ONCE = (
    f"{COUNT}\nif os.path.getsize(folder / 'starts') == 1: sys.exit(os.kill(os.getppid(), signal.SIGKILL))\n"
)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DmaskError, match=r"--engine ray needs the package 'ray'; pip install 'dmask-mobile\[ray\]'"):
        run_on_ray([], 2, Outcomes())


@pytest.mark.parametrize(
    ("nodes", "num_at_once", "share"),
    [
        ([{"CPU": 2.0}], 2, Share(1, 0.0)),
        ([{"CPU": 2.0}], 5, Share(1, 0.0)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}], 2, Share(8, 1.0)),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0}], 1, Share(4, 1.0)),  # a task runs on one machine
    ],
)
def test_tasks_share_the_machines(nodes: list[dict[str, float]], num_at_once: int, share: Share) -> None:
    assert share_of(nodes, num_at_once) == share


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nothing_listens_to_the_network(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    addresses: set[str] = set()

    class Looking(Outcomes):
        def __call__(self, job: Job, reason: str | None) -> None:
            super().__call__(job, reason)
            for process in psutil.Process().children(recursive=True):
                listening = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                addresses.update(listening)

    outcomes = Looking()
    fails = fake_job(tmp_path / "fails", "sys.exit('error: no such data')")
    run_on_ray([fake_job(tmp_path / "dies", KILL_WORKER_ONCE + FINISH), fails], 2, outcomes)
    assert outcomes == {"dies": None, "fails": "search ended with status 1: no such data"}
    assert (tmp_path / "dies" / "starts").read_text() == "xx"
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    assert capfd.readouterr().out == ""  # results alone go there


@pytest.mark.slow
def test_a_signal_stops_the_tasks_with_what_they_kept(tmp_path: Path) -> None:
    jobs = [fake_job(tmp_path / name, UNTIL_STOPPED) for name in ("a", "b", "waits")]

    def send() -> None:
        wait_until(lambda: sum((tmp_path / job.name / "started").exists() for job in jobs) == 2, "two have started")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(StoppedError, match="sweep stopped by SIGTERM"):
        run_on_ray(jobs, 2, Outcomes())
    thread.join()
    # A worker that loses every interrupt is ended, and its child process then stops by itself.
    wait_until(lambda: sum((job.folder / "kept").exists() for job in jobs) == 2, "both have kept their checkpoints")
