"""One of the devices that measure for a table: loading models on it and sampling them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped
from dmask_mobile.records.child import ChildSpec
from latency_tables.conversion.converter import ConversionError, Converter
from latency_tables.devices.device import Conditions, EstimatingSession, MeasuringError, Samples, Session
from latency_tables.table.rows import Subject

WAKING_SECONDS = 0.05


class MeasuredDevice:
    """One device's session, and what it has loaded.

    Args:
        index: of the device among those that share a table.
        session: on the device.
        converter: makes the models.
        note_failure: told of each subject that cannot be converted, loaded or run, and why.
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
        self._shares_asked = False

    def load(self, subject: Subject) -> bool:
        """Whether the model is ready. It is loaded if it is not, unless that has failed before."""
        if subject in self._loaded or subject in self._failed:
            return subject in self._loaded
        failure = self._load_model(subject)
        if failure is None:
            self._loaded.add(subject)
        else:
            self._failed.add(subject)
            self.note_failure(subject, failure)
        check_stopped("profiling")
        return failure is None

    def sample(self, subject: Subject, seconds: float) -> Samples | None:
        """One round of a loaded model; None where the runtime failed."""
        try:
            return self.session.sample(_key(subject), seconds)
        except MeasuringError as error:
            self.note_failure(subject, error)
            return None

    def wake(self, child: ChildSpec) -> None:
        """Runs a loaded network for a moment.

        A core that slept while models were converted measures 1.6 times too slow at first.
        """
        self.sample(child, WAKING_SECONDS)

    def unload(self, subjects: Iterable[Subject]) -> None:
        """Forgets the models of those ``subjects`` that are loaded."""
        for subject in self._loaded.intersection(subjects):
            self._loaded.discard(subject)
            self.session.unload(_key(subject))

    def conditions(self) -> Conditions | None:
        """What the device says of itself now."""
        return self.session.conditions()

    def shares(self, child: ChildSpec) -> dict[str, float]:
        """The share of each kind of operation as the runtime estimates it; asked once, empty from then on."""
        if self._shares_asked:
            return {}
        self._shares_asked = True
        if not isinstance(self.session, EstimatingSession):
            return {}
        with suppress(MeasuringError):  # an estimate is not worth a profile
            return self.session.shares(_key(child))
        return {}

    def _load_model(self, subject: Subject) -> DmaskError | None:
        """Why it cannot be converted, or the runtime refuses it; None when it is ready."""
        try:
            self.session.load(_key(subject), self.converter.model(subject))
        except (ConversionError, MeasuringError) as error:
            return error
        return None


def _key(subject: Subject) -> str:
    """Names a model in a session."""
    return subject.digest() if isinstance(subject, ChildSpec) else repr(subject)
