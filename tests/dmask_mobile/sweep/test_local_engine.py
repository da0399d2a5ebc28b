from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from dmask_mobile.files import locked
from dmask_mobile.interruption import StoppedError
from dmask_mobile.ranks import num_cores
from dmask_mobile.sweep.job import LOG_NAME, never, run_job
from dmask_mobile.sweep.local_engine import run_locally
from tests.dmask_mobile.sweep.fake import COUNT, FINISH, UNTIL_STOPPED, Outcomes, fake_job
from tests.processes import wait_until


def test_a_run_that_fails_is_tried_again_once_and_the_others_are_made(tmp_path: Path) -> None:
    fails = fake_job(tmp_path / "fails", f"{COUNT}; print('reading'); sys.exit('error: no such data')")
    second = f"{COUNT}; os.path.getsize(folder / 'starts') > 1 or sys.exit(3)\n{FINISH}"
    outcomes = Outcomes()
    run_locally([fails, fake_job(tmp_path / "second", second), fake_job(tmp_path / "good", FINISH)], 1, outcomes)
    assert outcomes == {"fails": "search ended with status 1: no such data", "second": None, "good": None}
    assert [(tmp_path / name / "starts").read_text() for name in ("fails", "second")] == ["xx", "xx"]
    assert (tmp_path / "fails" / LOG_NAME).read_text().count("no such data") == 2


def test_what_ends_without_its_result_or_by_a_signal_is_no_success(tmp_path: Path) -> None:
    assert run_job(fake_job(tmp_path / "none", "pass"), 1) == "search ended without a result"
    killed = fake_job(tmp_path / "killed", "os.kill(os.getpid(), signal.SIGKILL)")
    assert run_job(killed, 1) == "search was ended by SIGKILL"


def test_what_is_done_is_not_started_again(tmp_path: Path) -> None:
    job = fake_job(tmp_path / "a", f"{COUNT}\n{FINISH}")
    assert [run_job(job, 1), run_job(job, 1)] == [None, None]
    assert (tmp_path / "a" / "starts").read_text() == "x"


def test_two_run_at_once_and_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = []
    for own, other in (("a", "b"), ("b", "a")):
        meet = f"(folder / 'here').touch()\nwhile not (folder.parent / '{other}' / 'here').exists(): time.sleep(0.01)\n"
        threads = "(folder / 'threads').write_text(os.environ['OMP_NUM_THREADS'])\n"
        jobs.append(fake_job(tmp_path / own, meet + threads + FINISH))
    outcomes = Outcomes()
    run_locally(jobs, 2, outcomes)
    assert outcomes == {"a": None, "b": None}
    assert (tmp_path / "a" / "threads").read_text() == str(max(1, num_cores() // 2))


def test_a_signal_stops_every_child_with_what_it_kept(tmp_path: Path) -> None:
    jobs = [fake_job(tmp_path / name, UNTIL_STOPPED) for name in ("a", "b", "waits")]

    def send() -> None:
        wait_until(lambda: all((tmp_path / name / "started").exists() for name in ("a", "b")), "both have started")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    outcomes = Outcomes()
    with pytest.raises(StoppedError, match=r"sweep stopped by SIGTERM.*start the same command again") as stopped:
        run_locally(jobs, 2, outcomes)
    thread.join()
    assert stopped.value.signal_number == signal.SIGTERM
    assert [(tmp_path / name / "kept").exists() for name in ("a", "b", "waits")] == [True, True, False]
    assert outcomes == {}


def test_children_are_stopped_when_the_caller_fails(tmp_path: Path) -> None:
    class BrokenError(Exception):
        pass

    def broken(job: object, reason: str | None) -> None:
        wait_until((tmp_path / "long" / "started").exists, "the other one has started")
        raise BrokenError

    with pytest.raises(BrokenError):
        run_locally([fake_job(tmp_path / "short", FINISH), fake_job(tmp_path / "long", UNTIL_STOPPED)], 2, broken)
    assert (tmp_path / "long" / "kept").exists()


def test_a_run_folder_that_an_earlier_command_still_holds_is_waited_for(tmp_path: Path) -> None:
    job = fake_job(tmp_path / "a", FINISH)
    job.folder.mkdir()
    looked = threading.Event()

    def is_halted() -> bool:
        looked.set()
        return never()

    outcome: list[str | None] = ["not ended"]
    thread = threading.Thread(target=lambda: outcome.append(run_job(job, 1, is_halted)))
    with locked(job.folder, "dmask search"):
        thread.start()
        looked.wait()
        assert not (job.folder / LOG_NAME).exists()
    thread.join()
    assert outcome[-1] is None
