"""`DataOptions`: how labelled images are read."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from dmask_mobile.records.base import Record

GIB = 2**30
MAX_WORKERS = 256


class DataOptions(Record):
    """How data is read.

    ``memory_bytes``: decoded images that are kept in memory take at most so much, the rest is decoded when needed;
    ``workers``: processes that decode (None: as many as there are cores, at most 4, where it pays); ``flip``: whether
    training mirrors images (None: as the source says); ``skip_bad``: leave out images that do not decode.
    """

    memory_bytes: NonNegativeInt = 2 * GIB
    workers: NonNegativeInt | None = Field(default=None, le=MAX_WORKERS)
    flip: bool | None = None
    skip_bad: bool = False

    def with_said(self, others: DataOptions | None) -> DataOptions:
        """These with what ``others`` says explicitly in their place."""
        return self if others is None else self.model_copy(update=others.model_dump(exclude_unset=True))
