"""`DataOptions`: how labelled images are read."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from dmask_mobile.records.base import Record

GIB = 2**30
MAX_WORKERS = 256


class DataOptions(Record):
    """How data is read.

    ``memory_bytes``: the most memory for decoded images; images beyond it are decoded each time they are needed.
    ``workers``: processes that decode images (None: one for each core, at most 4, if that is faster). ``flip``: whether
    training mirrors images (None: the data source decides). ``skip_bad``: leave out images that cannot be decoded.
    """

    memory_bytes: NonNegativeInt = 2 * GIB
    workers: NonNegativeInt | None = Field(default=None, le=MAX_WORKERS)
    flip: bool | None = None
    skip_bad: bool = False

    def with_said(self, others: DataOptions | None) -> DataOptions:
        """These options, with every option that was set explicitly in ``others`` replaced by its value there."""
        return self if others is None else self.model_copy(update=others.model_dump(exclude_unset=True))
