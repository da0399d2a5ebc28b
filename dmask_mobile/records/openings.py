"""`SplitOpenings`: how often the test split was opened for a run."""

from __future__ import annotations

from typing import ClassVar, Literal

from dmask_mobile.records.base import FileRecord, Record

OpenedBy = Literal["dmask test", "dmask verify"]


class Opening(Record):
    """A note that the test split was opened for these weights; written before the first image is read."""

    weights_sha256: str
    by: OpenedBy
    created: str


class SplitOpenings(FileRecord):
    """``test_openings.json``: every time that ``dmask test`` opened the test split, even if it was interrupted, and the
    first verification of each set of weights.
    """

    file_format: ClassVar[str] = "dmask-test-openings"

    openings: tuple[Opening, ...] = ()

    @property
    def count(self) -> int:
        """How often the test split was opened; a verification does not count if its weights were also tested."""
        tested = [opening.weights_sha256 for opening in self.openings if opening.by == "dmask test"]
        verified = {opening.weights_sha256 for opening in self.openings} - set(tested)
        return len(tested) + len(verified)

    def with_opening(self, opening: Opening) -> SplitOpenings:
        """These openings and ``opening``, unless it is another verification of the same weights."""
        known = {(other.weights_sha256, other.by) for other in self.openings if other.by == "dmask verify"}
        if (opening.weights_sha256, opening.by) in known:
            return self
        return SplitOpenings(openings=(*self.openings, opening))
