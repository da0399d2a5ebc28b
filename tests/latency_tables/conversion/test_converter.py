"""Models are converted once, elsewhere where that pays, and never found where they do not belong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from torch import nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError, stop_signals
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.block import BlockSpec
from latency_tables.conversion import converter as conversion
from latency_tables.conversion import workers
from latency_tables.conversion.converter import ConversionError, converter_for, remove_oldest
from latency_tables.conversion.subjects import SUBJECT
from latency_tables.conversion.worker import Answer, KilledError
from latency_tables.conversion.workers import MIN_FOR_SEVERAL
from latency_tables.runtimes.ncnn import NcnnRuntime
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import Subject
from tests.processes import wait_until


def blocks(count: int) -> list[Subject]:
    return [(BlockSpec(kind="conv", in_width=3, out_width=4 + i, kernel=3, stride=2), 8) for i in range(count)]


class FakeProcess:
    """A `ConverterProcess` that answers at once with what ``answers`` makes of a subject, or is killed by it."""

    answers: Callable[[Subject], Answer] = staticmethod(lambda subject: Answer(b"model"))  # type: ignore[assignment]
    given: ClassVar[list[Subject]] = []
    seconds = 0.1

    def __init__(self, runtime: str, precision: str, folder: Path) -> None:
        self.alive, self.own = True, list[Subject]()
        self._reading, self._writing = os.pipe()

    def start(self, subject: Any) -> None:
        self.subject = SUBJECT.validate_python(subject)
        self.given.append(self.subject)
        self.own.append(self.subject)
        os.write(self._writing, b".")

    def fileno(self) -> int:
        return self._reading

    def answer(self) -> Answer:
        os.read(self._reading, 1)
        try:
            return self.answers(self.subject)
        except KilledError:
            self.alive = False
            raise

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    """The processes that convert are fake ones of this class."""

    class Process(FakeProcess):
        given: ClassVar[list[Subject]] = []

    monkeypatch.setattr(workers, "ConverterProcess", Process)
    return Process


def answering(process: type[FakeProcess], answers: Callable[[Subject], Answer]) -> None:
    process.answers = staticmethod(answers)  # type: ignore[assignment]


def test_a_model_is_converted_once(tmp_path: Path, process: type[FakeProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    answering(process, lambda subject: Answer(f"model {len(process.given)}".encode()))
    runtime, (first, second) = NcnnRuntime(), blocks(2)
    for _ in range(2):
        with converter_for(runtime, "fp32", tmp_path) as converter:
            assert converter.model(first) == b"model 1"
    with converter_for(runtime, "fp16", tmp_path) as converter:
        assert converter.model(first) == b"model 2"
    with converter_for(runtime, "fp32", tmp_path) as converter:
        assert converter.model(second) == b"model 3"
        monkeypatch.setattr(conversion, "source_digest", lambda *places: "of changed code")
        assert converter.model(first) == b"model 4"


def test_blocks_of_one_structure_go_to_one_process(tmp_path: Path, process: type[FakeProcess]) -> None:
    """Each process converts the first of a structure by itself, which takes a hundred times as long as the others."""
    wanted = [
        (BlockSpec(kind="conv", in_width=3, out_width=4 + number, kernel=kernel, stride=2), 8)
        for number in range(4)
        for kernel in (1, 3, 5)
    ]
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        converter.workers.limit = 2
        converter.convert_all(wanted)
        homes = converter.workers._homes.values()
        assert len(set(homes)) == 2
        assert all(map(converter.is_ready, wanted))
    kernels = {home: {block.kernel for block, _ in home.own} for home in homes}
    assert sorted(kernel for own in kernels.values() for kernel in own) == [1, 3, 5]


def test_what_is_quick_to_convert_is_not_kept(tmp_path: Path) -> None:
    with converter_for(OnnxRuntime(), "fp32", tmp_path) as converter:
        converter.convert_all(blocks(MIN_FOR_SEVERAL + 1))
        assert converter.model(blocks(1)[0])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_converted_says_why_and_is_not_kept(tmp_path: Path, process: type[FakeProcess]) -> None:
    answering(process, lambda subject: Answer(failure="RuntimeError: no kernel"))
    (block,) = blocks(1)
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        converter.convert_all([block])
        for _ in range(2):
            with pytest.raises(ConversionError, match=r"^RuntimeError: no kernel$"):
                converter.model(block)
    assert process.given == [block]  # not tried again in one run
    assert list(tmp_path.iterdir()) == []


def killed(subject: Subject) -> Answer:
    raise KilledError("SIGKILL")


def test_a_process_that_was_killed_is_replaced_and_its_model_converted(
    tmp_path: Path, process: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process gets it; one process fewer runs, since a lack of memory is the usual cause."""
    wanted = blocks(MIN_FOR_SEVERAL)
    answering(process, lambda subject: killed(subject) if len(process.given) == 1 else Answer(b"model"))
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        limit = converter.workers.limit = 2
        converter.convert_all(wanted[:1])
        assert converter.workers.limit == limit - 1
        converter.convert_all(wanted)
        assert all(map(converter.is_ready, wanted))
    assert process.given.count(wanted[0]) == 2


def test_processes_that_are_killed_again_and_again_end_the_conversion(
    tmp_path: Path, process: type[FakeProcess]
) -> None:
    """An endless loop would be the alternative, or a row that says that the model fails."""
    answering(process, killed)
    with (
        converter_for(NcnnRuntime(), "fp32", tmp_path) as converter,
        pytest.raises(DmaskError, match=r"this machine cannot continue: .* was killed from outside \(SIGKILL\)"),
    ):
        converter.convert_all(blocks(3))
    assert len(process.given) == 2


def test_a_machine_that_is_short_of_something_ends_the_conversion(tmp_path: Path, process: type[FakeProcess]) -> None:
    """What was converted before is kept."""
    full = Answer(shortage="OSError: [Errno 28] No space left on device")
    answering(process, lambda subject: Answer(b"model") if len(process.given) == 1 else full)
    first, second = blocks(2)
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        with pytest.raises(
            DmaskError, match=r"this machine cannot continue: OSError: .*No space left on device; free disk space"
        ):
            converter.convert_all([first, second])
        assert converter.is_ready(first)
        assert not converter.is_ready(second)
        answering(process, lambda subject: Answer(b"model"))
        assert converter.model(second) == b"model"


class Failing(OnnxRuntime):
    """ONNX Runtime, whose models are quick to make, but for a converter that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def convert(self, module: nn.Module, input_shape: Sequence[int], precision: Precision) -> bytes:
        try:
            raise self.error
        except Exception as error:
            raise RuntimeError("the converter failed") from error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EMFILE, "too many"), MemoryError(), RuntimeError("std::bad_alloc")],
    ids=repr,
)
def test_a_shortage_is_told_from_a_failure_also_where_a_converter_wraps_it(error: Exception, tmp_path: Path) -> None:
    with converter_for(Failing(error), "fp32", tmp_path) as converter:
        if type(error) is RuntimeError:  # only its own words tell
            converter.runtime.convert = lambda *_: _raise(error)  # type: ignore[method-assign]
        with pytest.raises(DmaskError, match="this machine cannot continue: RuntimeError"):
            converter.model(blocks(1)[0])
    with (
        converter_for(Failing(ValueError("no kernel")), "fp32", tmp_path) as converter,
        pytest.raises(ConversionError, match=r"^RuntimeError: the converter failed$"),
    ):
        converter.model(blocks(1)[0])


def _raise(error: Exception) -> NoReturn:
    raise error


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits another process")
def test_a_disk_that_takes_nothing_is_told_from_a_model_that_fails(tmp_path: Path) -> None:
    """For real: the files of this converter are written by C++, which says no more than that it did not work."""
    import resource

    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        converter.start(1)
        (process,) = converter.workers._processes
        resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(DmaskError, match="this machine cannot continue: "):
            converter.model(blocks(1)[0])


def test_nothing_is_started_that_would_take_too_long(tmp_path: Path, process: type[FakeProcess]) -> None:
    wanted, asked = blocks(5), []

    def may_start(subject: Subject) -> bool:
        asked.append(subject)
        return len(asked) <= 2

    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        assert converter.expected_seconds(wanted[0]) == 0.0
        converter.convert_all(wanted, may_start=may_start)
        assert [converter.is_ready(subject) for subject in wanted] == [True, True, False, False, False]
        assert converter.expected_seconds(wanted[4]) == FakeProcess.seconds
    assert process.given == wanted[:2]


def test_a_cache_that_cannot_be_written_to_is_an_error(tmp_path: Path, process: type[FakeProcess]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DmaskError, match=r"file' cannot be written to: .*XDG_CACHE_HOME"):
        converter_for(NcnnRuntime(), "fp32", tmp_path / "file").__enter__()
    with converter_for(NcnnRuntime(), "fp32", tmp_path / "cache") as converter:
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(DmaskError, match="cache' cannot be written to: No such file"):
            converter.convert_all(blocks(1))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    """One that is killed cannot end the processes that convert for it; they must not go on for minutes."""
    script = (
        "import sys, time; from pathlib import Path; from latency_tables.conversion.worker import ConverterProcess\n"
        "process = ConverterProcess('ncnn', 'fp32', Path(sys.argv[1]))\n"
        "print(process._process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    parent.communicate()
    wait_until(lambda: has_ended(pid), "the end of the process that converts")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or dead and not yet waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drops_the_conversion_under_way(
    signal_number: int, tmp_path: Path, process: type[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that will never end by itself, as that of a large network nearly does not."""

    def start(self: FakeProcess, subject: Any) -> None:
        os.kill(os.getpid(), signal_number)

    monkeypatch.setattr(process, "start", start)
    with (
        stop_signals(),
        converter_for(NcnnRuntime(), "fp32", tmp_path) as converter,
        pytest.raises(StoppedError, match="converting models stopped by"),
    ):
        converter.convert_all(blocks(2))


@pytest.mark.slow
def test_processes_convert_as_this_one_does(tmp_path: Path) -> None:
    wanted, told = blocks(MIN_FOR_SEVERAL), []
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter:
        converter.convert_all(wanted, lambda stage, done, total, note="": told.append((stage, done, total)))
        assert len(list(tmp_path.iterdir())) == MIN_FOR_SEVERAL
        assert told == [("convert", done, MIN_FOR_SEVERAL) for done in range(1, MIN_FOR_SEVERAL + 1)]
        found = converter.model(wanted[0])
        assert len(found) == len(conversion.convert_subject(wanted[0], NcnnRuntime(), "fp32"))
        with converter_for(NcnnRuntime(), "fp32", tmp_path / "other") as other:
            pids = [process._process.pid for process in converter.workers._processes]
            assert other.workers._processes == []
    assert pids
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_a_wish_to_stop_ends_the_conversion(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        raise StopError

    wanted = blocks(10 * MIN_FOR_SEVERAL)
    with converter_for(NcnnRuntime(), "fp32", tmp_path) as converter, pytest.raises(StopError):
        converter.convert_all(wanted, stop)
    assert 0 < len(list(tmp_path.iterdir())) < len(wanted)


def test_the_oldest_models_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    remove_oldest(tmp_path, 25)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}
    remove_oldest(tmp_path, 25)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}
