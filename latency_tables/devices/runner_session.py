"""A session that uses a runtime's own benchmark program on a phone, with one process for each measurement."""

from __future__ import annotations

import io
import itertools
import re
import shlex
import signal
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.temporary import temporary_folder
from latency_tables.devices.adb_client import Adb, Output, SlowError
from latency_tables.devices.device import MeasuringError, Samples
from latency_tables.devices.native_log import Timing, UnfitLogError, log_text
from latency_tables.devices.runners import MAX_RUNS, MIN_RUNS, NativeRunner, RunRequest
from latency_tables.devices.trouble import killed_twice, lacking_in
from latency_tables.processes import killed_by

PATIENCE_SECONDS = 180.0
DOES_NOT_START = (126, 127)  # a shell's statuses for "cannot be run" and "not found"
NEXT = "the session continues with the next model"


class _Loaded(NamedTuple):
    """A model on the phone: its file, the shape of its input if known, and the milliseconds of its first run."""

    file: str
    shape: tuple[int, ...]
    first_ms: float = 0.0


class RunnerSession:
    """`Session` on a phone that runs a native program.

    Args:
        adb: the phone.
        native: the program.
        folder: the folder on the phone for the program and the models.
        prefix: the beginning of the command that starts the program on its cores.
        threads: the number of threads.
        delegate: the backend.
        patience: the seconds after which a program counts as hanging.

    Raises:
        DmaskError: if the phone cannot run the program.
    """

    def __init__(
        self,
        adb: Adb,
        native: NativeRunner,
        folder: str,
        prefix: Sequence[str],
        threads: int,
        delegate: str,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.adb = adb
        self.native = native
        self.folder = folder
        self.threads = threads
        self.patience = patience
        self.delegate = delegate
        self._flags = native.delegate_flags(delegate)
        self._start = [*prefix, f"./{native.name}"]
        self._models: dict[str, _Loaded] = {}
        self._numbers = itertools.count()
        self._bring()

    def load(self, key: str, model: bytes) -> None:
        """Copies a model to the phone and runs it a few times, to check that it runs and how fast; see `Session`."""
        content, shape = _param_of(model) if self.native.runner.model_format == "ncnn" else (model, ())
        loaded = _Loaded(f"{next(self._numbers)}{self.native.runner.suffix}", shape)
        with temporary_folder() as folder:
            path = folder / loaded.file
            path.write_bytes(content)
            self.adb.push(path, f"{self.folder}/{loaded.file}")
        self._models[key] = loaded
        try:
            first_ms = self._time(loaded, MIN_RUNS, 0.0).ms
        except MeasuringError:
            self.unload(key)
            raise
        self._models[key] = loaded._replace(first_ms=first_ms)

    def sample(self, key: str, seconds: float) -> Samples:
        """Times the model; see `Session`."""
        loaded = self._models[key]
        runs = min(MAX_RUNS, max(MIN_RUNS, round(1e3 * seconds / loaded.first_ms)))
        return Samples((self._time(loaded, runs, seconds).ms,), ())

    def unload(self, key: str) -> None:
        """Removes a model from the phone; see `Session`."""
        loaded = self._models.pop(key, None)
        if loaded is not None:
            self.adb.shell("rm", "-f", f"{self.folder}/{loaded.file}")

    def conditions(self) -> None:
        """None: another object watches the phone; see `Session`."""
        return

    def _bring(self) -> None:
        """Copies the program to the phone and starts it once, so that it fails now and not for every model."""
        self.adb.push(self.native.path, f"{self.folder}/{self.native.name}")
        for library in self.native.libraries:
            self.adb.push(library, f"{self.folder}/{library.name}")
        self.adb.shell("chmod", "700", f"{self.folder}/{self.native.name}")
        try:
            output = self._run(self.native.runner.trial)
        except MeasuringError as error:
            raise DmaskError(f"'{self.native.path}': {error.problem}", self.native.runner.where) from error
        if output.status in DOES_NOT_START or "CANNOT LINK EXECUTABLE" in output.stderr:
            raise DmaskError(f"the phone cannot run '{self.native.path}': {output.tail()}", self.native.runner.where)
        if refused := re.search(r"^taskset: .*", output.stderr, re.M):
            raise DmaskError(
                f"the phone does not run programs on these cores: {refused[0]}",
                "one of them may be offline: choose others with --cores",
            )

    def try_out(self, model: bytes) -> None:
        """Runs a small model, so that a program with unreadable output fails now and not for every model.

        Raises:
            DmaskError: if it fails.
        """
        try:
            self.load("trial", model)
        except MeasuringError as error:
            problem = f"'{self.native.path}' cannot measure a small model on '{self.delegate}': {error.problem}"
            raise DmaskError(problem, self.native.runner.where) from error
        self.unload("trial")

    def _time(self, loaded: _Loaded, runs: int, seconds: float) -> Timing:
        request = RunRequest(loaded.file, self.threads, self._flags, self.native.flags, seconds, runs, loaded.shape)
        arguments = self.native.runner.arguments(request)
        output = self._run(arguments)
        if killed_by(output.status):
            output = self._run(arguments)
        if killer := killed_by(output.status):
            raise killed_twice(killer)
        if output.status:
            if trouble := lacking_in(output.tail()):
                raise trouble
            raise MeasuringError(f"{self.native.name} ended with {_cause(output.status)}: {output.tail()}", NEXT)
        text = log_text((_whole_lines(output.stdout) + _whole_lines(output.stderr)).encode())
        try:
            timing = self.native.runner.parse(text, self.delegate)
        except UnfitLogError as error:
            raise MeasuringError(error.problem, NEXT) from error
        if timing is None or timing.ms <= 0:
            raise MeasuringError(f"{self.native.name} printed no time: {output.tail()}", self.native.runner.where)
        return timing

    def _run(self, arguments: Sequence[str]) -> Output:
        """The output of the program, including the system log."""
        words = ["exec", "env", f"LD_LIBRARY_PATH={self.folder}", *self._start, *arguments]
        # The shell is replaced by the program, so that its process id is that of the program.
        script = f"echo $$; cd {shlex.quote(self.folder)} && {shlex.join(words)}"
        try:
            output = self.adb.shell("sh", "-c", script, seconds=self.patience)
        except SlowError as error:
            pid = error.stdout.partition("\n")[0]
            if not pid:  # it was not even started, because the phone was absent
                raise
            self.adb.shell("kill", "-9", pid)
            raise MeasuringError(f"{self.native.name} has not ended {error.how}: it hangs", "it was killed") from None
        pid, _, stdout = output.stdout.partition("\n")
        if tag := self.native.runner.log_tag:
            log = self.adb.shell("logcat", "-d", "-v", "raw", f"--pid={pid}", "-s", f"{tag}:V").stdout
            stdout = _whole_lines(stdout) + log
        return output._replace(stdout=stdout)


def _param_of(model: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The param file of an ncnn model and the shape of its input (C, H, W); the program uses its own weights."""
    try:
        content = zipfile.ZipFile(io.BytesIO(model)).read("model.param")
    except (zipfile.BadZipFile, KeyError) as error:
        raise MeasuringError(f"not an ncnn model: {error}", NEXT) from error
    found = re.search(r"^Input .* 0=(\d+) 1=(\d+) 2=(\d+)$", content.decode(errors="replace"), re.M)
    if found is None:
        raise MeasuringError("model.param does not contain the shape of its input", NEXT)
    width, height, channels = map(int, found.groups())
    return content, (channels, height, width)


def _whole_lines(text: str) -> str:
    """The text without an incomplete last line, which may end in the middle of a number."""
    return text[: text.rfind("\n") + 1]


def _cause(status: int) -> str:
    """The exit status of a shell as text."""
    names = {number.value: number.name for number in signal.Signals}
    return names.get(status - 128, f"status {status}")
