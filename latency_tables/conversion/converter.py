"""Converts blocks and networks to models; slow conversions run in several processes and are cached on disk.

LiteRT, ExecuTorch and ncnn take seconds for a network, and for a block where it is not made by structure. For such a
runtime, separate processes convert: they use all cores, can be ended at any time, and a crash or a lack of memory
affects only them. Converted models are cached by a
digest of everything that they depend on, so that more rounds, another device or a second start convert nothing again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path

import torch

from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import remove_stale_temporaries, temporary_beside
from dmask_mobile.temporary import temporary_folder
from latency_tables.conversion.subjects import SUBJECT, convert_subject
from latency_tables.conversion.workers import Workers
from latency_tables.runtimes.runtime import Runtime
from latency_tables.shortage import is_shortage, shortage
from latency_tables.sources import source_digest
from latency_tables.table.rows import Subject
from latency_tables.user_cache import unwritable, user_cache

CACHE_BYTES = 2 * 2**30
# The code that makes models: if it changes, models from the old code must not be used.
MAKES_MODELS = (
    "latency_tables/conversion/*.py",
    "latency_tables/runtimes/*.py",
    "export/*.py",
    "export/formats/**/*.py",
    "dmask_mobile/nets/*.py",
    "dmask_mobile/records/*.py",
)


class ConversionError(DmaskError):
    """A model that cannot be converted; other models can."""


class Converter:
    """Converts subjects for one runtime and precision; use `converter_for`.

    Args:
        runtime: the runtime, which determines the format.
        precision: the precision of the models.
        folder: the folder of the cache.
        workers: the processes for slow conversions.
    """

    def __init__(self, runtime: Runtime, precision: Precision, folder: Path, workers: Workers) -> None:
        self.runtime = runtime
        self.precision = precision
        self.folder = folder
        self.workers = workers
        self.slow = runtime.converts_slowly(precision)
        self._failures: dict[Subject, str] = {}
        self._seconds: dict[type, list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def convert_all(
        self,
        subjects: Sequence[Subject],
        progress: Progress = silent,
        may_start: Callable[[Subject], bool] = lambda subject: True,
    ) -> None:
        """Converts models into the cache, if conversion is slow; `model` raises the error of a failed conversion.

        Args:
            subjects: the blocks and networks to convert.
            progress: is called after each one.
            may_start: is called before each one; as soon as it returns False, the rest is left out.

        Raises:
            DmaskError: if the machine is at fault, or the cache cannot be written to.
            StoppedError: if a signal was received.
        """
        missing = [subject for subject in dict.fromkeys(subjects) if not self.is_ready(subject)]
        with self._lock:
            for done, _ in enumerate(self._convert(missing, may_start), start=1):
                progress("convert", done, len(missing))

    def start(self, count: int) -> None:
        """Starts the processes for ``count`` models in the background, if conversion is slow."""
        if self.slow:
            self.workers.start(count)

    def is_ready(self, subject: Subject) -> bool:
        """Whether `model` returns without a slow conversion."""
        return not self.slow or subject in self._failures or self._path(subject).exists()

    def expected_seconds(self, subject: Subject) -> float:
        """The expected seconds of a slow conversion, from earlier ones; 0 if there were none."""
        return statistics.median(self._seconds[type(subject)] or [0.0])

    def model(self, subject: Subject) -> bytes:
        """The model of ``subject``, from the cache if it is there.

        Raises:
            ConversionError: if it cannot be converted.
            DmaskError: if the machine is at fault, or the cache cannot be written to.
            StoppedError: if a signal was received during a slow conversion.
        """
        with self._lock:  # converters redirect the process's outputs
            if not self.slow:
                return self._convert_here(subject)
            try:
                return self._path(subject).read_bytes()
            except FileNotFoundError:
                if subject not in self._failures:
                    list(self._convert([subject]))
            if subject in self._failures:
                raise ConversionError(self._failures[subject])
            return self._path(subject).read_bytes()

    def _convert_here(self, subject: Subject) -> bytes:
        try:
            return convert_subject(subject, self.runtime, self.precision)
        except Exception as error:  # a converter may raise any exception
            reason = f"{type(error).__name__}: {error}"
            raise (shortage(reason) if is_shortage(error) else ConversionError(reason)) from error

    def _convert(
        self, subjects: Sequence[Subject], may_start: Callable[[Subject], bool] = lambda subject: True
    ) -> Iterator[Subject]:
        """Yields each subject when it is in the cache or its conversion has failed."""
        with closing(self.workers.convert(subjects, may_start)) as converted:
            for subject, answer, seconds in converted:
                if answer.shortage:
                    raise shortage(answer.shortage)
                if answer.failure:
                    self._failures[subject] = answer.failure
                else:
                    self._keep(self._path(subject), answer.model)
                self._seconds[type(subject)].append(seconds)
                yield subject

    def _keep(self, path: Path, content: bytes) -> None:
        try:
            with temporary_beside(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    @functools.cached_property
    def _versions(self) -> list[str]:
        """The versions of the packages that convert."""
        return [torch.__version__, *map(metadata.version, self.runtime.converters)]

    def _path(self, subject: Subject) -> Path:
        made_of = {
            "subject": SUBJECT.dump_python(subject, mode="json"),
            "runtime": self.runtime.name,
            "precision": self.precision,
            "versions": self._versions,
            "source": source_digest(*MAKES_MODELS),
        }
        return self.folder / hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


@contextmanager
def converter_for(runtime: Runtime, precision: Precision, folder: Path | None = None) -> Iterator[Converter]:
    """A converter with its cache in ``folder`` or the user's cache; its processes end with the ``with`` block.

    Raises:
        DmaskError: if the cache cannot be written to.
    """
    folder = folder or cache_folder()
    with (
        temporary_folder() as temporary,
        closing(Workers(runtime.name, precision, temporary)) as workers,
    ):
        converter = Converter(runtime, precision, folder, workers)
        if converter.slow:  # fast conversions are not cached
            try:
                folder.mkdir(parents=True, exist_ok=True)
                remove_stale_temporaries(folder)
                remove_oldest(folder, CACHE_BYTES)
            except OSError as error:
                raise unwritable(folder, error) from error
        yield converter


def cache_folder() -> Path:
    """The folder of this user's converted models."""
    return user_cache() / "models"


def kept_models(folder: Path) -> Iterator[tuple[os.stat_result, Path]]:
    """The files of a cache, without files that another profile removes or renames at the same time."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            yield path.stat(), path


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Removes the oldest files until the others take at most ``most_bytes``."""
    files = sorted(kept_models(folder), key=lambda found: found[0].st_mtime)
    total = sum(status.st_size for status, _ in files)
    for status, path in files:
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= status.st_size
