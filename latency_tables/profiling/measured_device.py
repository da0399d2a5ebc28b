"""One of the devices that measure for a table: loads models on it and samples them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped
from dmask_mobile.records.child import ChildSpec
from latency_tables.conversion.converter import ConversionError, Converter
from latency_tables.devices.device import Conditions, EstimatingSession, MeasuringError, Samples, Session
from latency_tables.profiling.retaking import Retaking
from latency_tables.table.rows import Subject, describe_subject

WAKING_SECONDS = 0.05
SHARE_OF_LAST = 0.2  # of a request in the running mean
MAX_FAILURES = 6  # consecutive failures before a problem of the device is assumed
T = TypeVar("T")


class MeasuredDevice:
    """The session of one device, and its loaded models.

    A failure is recorded only after something has worked afterwards: on a broken device every model would fail, and no
    model would be the cause.

    Args:
        index: the number of the device among those that share a table.
        session: the session on the device.
        converter: converts the models.
        note_failure: is called with each subject that cannot be converted, loaded or run, and the reason.
    """

    def __init__(
        self,
        index: int,
        session: Session,
        converter: Converter,
        note_failure: Callable[[Subject, DmaskError], None],
    ) -> None:
        self.index = index
        self.session = session
        self.converter = converter
        self.note_failure = note_failure
        self._loaded: set[Subject] = set()
        self._failed: set[Subject] = set()
        self._doubtful: list[tuple[Subject, DmaskError]] = []
        self._working: Subject | None = None  # the last subject that was measured
        self._shares_asked = False
        self._retaking = Retaking()
        self.request_seconds = 0.0  # the running mean of the time for loading or sampling a model

    def try_out(self, subjects: Sequence[Subject]) -> None:
        """Measures one of ``subjects`` briefly, unless something was measured before; the result is not stored.

        Raises:
            DmaskError: if none of them can be measured.
        """
        if self._working is not None or not subjects:
            return
        for subject in subjects:
            failure = self._attempt(subject)
            if failure is None:
                self._working, self._doubtful = subject, []
                return
            self._doubtful.append((subject, failure))
            check_stopped("profiling")
        raise self._nothing_works()

    def load(self, subject: Subject) -> bool:
        """Whether the model is ready. If not, it is loaded, unless this has failed before.

        Raises:
            DmaskError: if nothing works on the device any more.
        """
        if subject in self._loaded or subject in self._failed:
            return subject in self._loaded
        failure = self._load_model(subject)
        if failure is None:
            self._loaded.add(subject)
        else:
            self._failed.add(subject)
            self._doubt(subject, failure)
        check_stopped("profiling")
        return failure is None

    def sample(self, subject: Subject, seconds: float) -> Samples | None:
        """One round of a loaded model; None if the runtime failed.

        A round that other programs interrupted is taken again, at most twice.

        Raises:
            DmaskError: if nothing works on the device any more.
        """
        try:
            samples = self._timed(
                lambda: self._retaking.sample(lambda: self.session.sample(key_of(subject), seconds)),
            )
        except MeasuringError as error:
            self._doubt(subject, error)
            return None
        self._confirm(subject)
        return samples

    def settle(self) -> None:
        """Decides whether failures without a later success were caused by the models or by the device.

        Raises:
            DmaskError: if nothing works on the device any more.
        """
        if self._doubtful:
            if self._working is None or self._attempt(self._working) is not None:
                raise self._nothing_works()
            self._confirm(self._working)

    def wake(self, child: ChildSpec) -> None:
        """Runs a loaded network briefly.

        A core that was idle while models were converted is at first 1.6 times too slow.
        """
        self.sample(child, WAKING_SECONDS)

    def unload(self, subjects: Iterable[Subject]) -> None:
        """Unloads the models of those ``subjects`` that are loaded."""
        for subject in self._loaded.intersection(subjects):
            self._loaded.discard(subject)
            self.session.unload(key_of(subject))

    def conditions(self) -> Conditions | None:
        """The current state of the device."""
        return self.session.conditions()

    def shares(self, child: ChildSpec) -> dict[str, float]:
        """The share of each kind of operation as estimated by the runtime; requested once, then empty."""
        if self._shares_asked:
            return {}
        self._shares_asked = True
        if not isinstance(self.session, EstimatingSession):
            return {}
        with suppress(MeasuringError):  # a failed estimate must not end a profile
            return self.session.shares(key_of(child))
        return {}

    def _timed(self, action: Callable[[], T]) -> T:
        """The result of ``action``, which is a timed request to the device."""
        begin = time.monotonic()
        found = action()
        seconds = time.monotonic() - begin
        self.request_seconds += (SHARE_OF_LAST if self.request_seconds else 1.0) * (seconds - self.request_seconds)
        return found

    def _doubt(self, subject: Subject, failure: DmaskError) -> None:
        self._doubtful.append((subject, failure))
        if len(self._doubtful) >= MAX_FAILURES:
            self.settle()

    def _confirm(self, working: Subject) -> None:
        """Records earlier failures as failures of the models, because something works now."""
        self._working = working
        doubtful, self._doubtful = self._doubtful, []
        for subject, failure in doubtful:
            self.note_failure(subject, failure)

    def _attempt(self, subject: Subject) -> DmaskError | None:
        """The reason why a subject cannot be measured briefly; None if it can."""
        failure = None if subject in self._loaded else self._load_model(subject)
        if failure is not None:
            return failure
        self._loaded.add(subject)
        try:
            self._timed(lambda: self.session.sample(key_of(subject), WAKING_SECONDS))
        except MeasuringError as error:
            return error
        return None

    def _nothing_works(self) -> DmaskError:
        subject, failure = self._doubtful[0]
        return DmaskError(
            f"nothing can be measured on the device: {describe_subject(subject)}: {describe_failure(failure)}",
            "correct that, then start the same command again; it continues; 'dmask doctor' looks for causes",
        )

    def _load_model(self, subject: Subject) -> DmaskError | None:
        """The reason why it cannot be converted or loaded; None if it is ready."""
        try:
            model = self.converter.model(subject)
            self._timed(lambda: self.session.load(key_of(subject), model))
        except (ConversionError, MeasuringError) as error:
            return error
        return None


def describe_failure(error: DmaskError) -> str:
    """The reason of a failure in the form that tables store."""
    named = error.problem if isinstance(error, ConversionError) else f"{type(error).__name__}: {error}"
    return " ".join(named.split())


def key_of(subject: Subject) -> str:
    """The key of a model in a session."""
    return subject.digest() if isinstance(subject, ChildSpec) else repr(subject)
