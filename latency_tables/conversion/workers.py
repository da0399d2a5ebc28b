"""Several processes that convert models in parallel."""

from __future__ import annotations

import functools
import selectors
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from dmask_mobile.interruption import check_stopped
from dmask_mobile.ranks import num_cores
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.child import ChildSpec
from latency_tables.conversion.structures import structure_of
from latency_tables.conversion.subjects import SUBJECT, by_structure
from latency_tables.conversion.worker import Answer, ConverterProcess, KilledError
from latency_tables.shortage import shortage
from latency_tables.table.rows import BlockAt, Subject

Structure = BlockAt
_structure_of = functools.lru_cache(10_000)(structure_of)  # asked again for all that waits
MAX_PROCESSES = 4  # each takes up to 1.5 GB
MIN_FOR_SEVERAL = 6  # models; starting a process takes as long as converting about this many
MAX_SECONDS = 300.0  # for one model
LOOK_SECONDS = 0.1  # between two checks for signals
MAX_KILLS = 2  # of processes by one model


class Workers:
    """Processes that convert models; they start when they are needed and are ended by `close`.

    Blocks of one structure go to the same process, because each process converts one of them itself.

    Args:
        runtime: the name of the runtime.
        precision: of the models.
        folder: the folder for temporary files of converters.
    """

    def __init__(self, runtime: str, precision: Precision, folder: Path) -> None:
        self.runtime = runtime
        self.precision = precision
        self.folder = folder
        self.limit = max(1, min(MAX_PROCESSES, num_cores()))
        self._processes: list[ConverterProcess] = []
        self._homes: dict[Structure, ConverterProcess] = {}

    def start(self, count: int) -> None:
        """Starts as many processes as ``count`` models need."""
        while len(self._processes) < self._most(count):
            self._new()

    def convert(
        self, subjects: Iterable[Subject], may_start: Callable[[Subject], bool] = lambda subject: True
    ) -> Generator[tuple[Subject, Answer, float]]:
        """Yields each subject with its answer and the seconds that this took, in the order of completion.

        If a process was killed from outside, the system probably had too little memory. Its model is converted again,
        with one process less.

        Args:
            subjects: the blocks and networks to convert.
            may_start: is called before each one; as soon as it returns False, nothing more is started.

        Raises:
            DmaskError: if the process of a model was killed twice from outside.
            StoppedError: if a signal was received; running conversions are dropped.
        """
        waiting, busy, kills = deque(subjects), dict[ConverterProcess, Subject](), Counter[Subject]()
        try:
            while self._hand_out(waiting, busy, may_start):
                for process in self._ready(busy):
                    subject, seconds = busy[process], process.seconds
                    answer = self._answer(process, kills, subject)
                    del busy[process]
                    if answer is None:
                        waiting.appendleft(subject)
                    else:
                        yield subject, answer, seconds
        finally:
            for process in busy:
                self._end(process)

    def close(self) -> None:
        """Ends the processes."""
        for process in list(self._processes):
            self._end(process)

    def _hand_out(
        self,
        waiting: deque[Subject],
        busy: dict[ConverterProcess, Subject],
        may_start: Callable[[Subject], bool],
    ) -> bool:
        """Gives work to idle processes; returns whether any process has work."""
        most = max(self._most(len(waiting) + len(busy)), len(self._processes))
        while waiting and len(busy) < min(self.limit, most):
            idle = [process for process in self._processes if process not in busy] or [self._new()]
            found = next(((process, subject) for process in idle if (subject := self._next(process, waiting))), None)
            if found is None:  # all that waits belongs to busy processes
                break
            process, subject = found
            if not may_start(subject):
                waiting.clear()
                break
            process.start(SUBJECT.dump_python(subject, mode="json"))
            waiting.remove(subject)
            busy[process] = subject
        return bool(busy)

    def _next(self, process: ConverterProcess, waiting: Iterable[Subject]) -> Subject | None:
        """The first subject that is not of a structure of another process; its structure is this one's from now on."""
        for subject in waiting:
            structure = self._structure(subject)
            if structure is None or self._homes.setdefault(structure, process) is process:
                return subject
        return None

    def _structure(self, subject: Subject) -> Structure | None:
        """None for a subject that is converted by itself."""
        if isinstance(subject, ChildSpec) or not by_structure(self.runtime, self.precision):
            return None
        return _structure_of(*subject)

    def _most(self, count: int) -> int:
        """The useful number of processes for ``count`` models."""
        return self.limit if count >= MIN_FOR_SEVERAL else min(1, count)

    def _ready(self, busy: dict[ConverterProcess, Subject]) -> list[ConverterProcess]:
        """The processes that have an answer, have ended or have taken too long; often none."""
        with selectors.DefaultSelector() as selector:
            for process in busy:
                selector.register(process, selectors.EVENT_READ)
            readable = [key.fileobj for key, _ in selector.select(LOOK_SECONDS)]
        check_stopped("converting models")
        return [process for process in busy if process in readable or process.seconds > MAX_SECONDS]

    def _answer(self, process: ConverterProcess, kills: Counter[Subject], subject: Subject) -> Answer | None:
        """The answer of a process for its subject; None if it was killed for the first time with this subject."""
        if process.seconds > MAX_SECONDS:
            self._end(process)
            return Answer(failure=f"the converter takes longer than {MAX_SECONDS:.0f} s")
        try:
            return process.answer()
        except KilledError as error:
            self.limit = max(1, self.limit - 1)
            kills[subject] += 1
            if kills[subject] == MAX_KILLS:
                raise shortage(f"the process that converts models was killed from outside ({error})") from None
            return None
        finally:
            if not process.alive:
                self._end(process)

    def _new(self) -> ConverterProcess:
        process = ConverterProcess(self.runtime, self.precision, self.folder)
        self._processes.append(process)
        return process

    def _end(self, process: ConverterProcess) -> None:
        if process in self._processes:
            self._processes.remove(process)
            self._homes = {structure: home for structure, home in self._homes.items() if home is not process}
            process.close()
