"""Models of blocks and networks: converted once, kept on disk, by several processes where a runtime is slow at it.

LiteRT and ExecuTorch take seconds for a block, whatever its size. Processes of their own convert for such a runtime:
they use all cores, can be ended at any time, and may crash or run out of memory alone. What was converted is kept by a
digest of all that it depends on, so that more rounds, another device or a second start convert nothing again.
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
# What makes models: a changed one must not find what another has made.
MAKES_MODELS = (
    "latency_tables/conversion/*.py",
    "latency_tables/runtimes/*.py",
    "export/*.py",
    "export/formats/**/*.py",
    "dmask_mobile/nets/*.py",
    "dmask_mobile/records/*.py",
)


class ConversionError(DmaskError):
    """A model that cannot be made; others can."""


class Converter:
    """Converts subjects for one runtime and precision; use `converter_for`.

    Args:
        runtime: whose format.
        precision: of the models.
        folder: of the cache.
        workers: convert where that is slow.
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
        """Puts models into the cache, where conversion is slow; `model` says why one cannot be converted.

        Args:
            subjects: what to convert.
            progress: told after each one.
            may_start: asked before each one; as soon as it says no, the rest is left out.

        Raises:
            DmaskError: when the machine is at fault, or the cache cannot be written to.
            StoppedError: when a signal came.
        """
        missing = [subject for subject in dict.fromkeys(subjects) if not self.is_ready(subject)]
        with self._lock:
            for done, _ in enumerate(self._convert(missing, may_start), start=1):
                progress("convert", done, len(missing))

    def start(self, count: int) -> None:
        """Lets the processes that ``count`` models need start beside other work, where conversion is slow."""
        if self.slow:
            self.workers.start(count)

    def is_ready(self, subject: Subject) -> bool:
        """Whether `model` answers without a slow conversion."""
        return not self.slow or subject in self._failures or self._path(subject).exists()

    def expected_seconds(self, subject: Subject) -> float:
        """How long a slow conversion will take, by those so far; 0 where there were none."""
        return statistics.median(self._seconds[type(subject)] or [0.0])

    def model(self, subject: Subject) -> bytes:
        """The model of ``subject``, from the cache where it is there.

        Raises:
            ConversionError: when it cannot be converted.
            DmaskError: when the machine is at fault, or the cache cannot be written to.
            StoppedError: when a signal came during a slow conversion.
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
        except Exception as error:  # whatever a converter raises
            reason = f"{type(error).__name__}: {error}"
            raise (shortage(reason) if is_shortage(error) else ConversionError(reason)) from error

    def _convert(
        self, subjects: Sequence[Subject], may_start: Callable[[Subject], bool] = lambda subject: True
    ) -> Iterator[Subject]:
        """Each subject once it is in the cache, or known to fail."""
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
        """Of what converts."""
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
    """A converter with its cache, in ``folder`` or where this user's caches are; its processes end with the block.

    Raises:
        DmaskError: when the cache cannot be written to.
    """
    folder = folder or cache_folder()
    with (
        temporary_folder() as temporary,
        closing(Workers(runtime.name, precision, temporary)) as workers,
    ):
        converter = Converter(runtime, precision, folder, workers)
        if converter.slow:  # what converts at once keeps nothing
            try:
                folder.mkdir(parents=True, exist_ok=True)
                remove_stale_temporaries(folder)
                remove_oldest(folder, CACHE_BYTES)
            except OSError as error:
                raise unwritable(folder, error) from error
        yield converter


def cache_folder() -> Path:
    """Where this user's converted models are kept."""
    return user_cache() / "models"


def kept_models(folder: Path) -> Iterator[tuple[os.stat_result, Path]]:
    """The files of a cache; without those that another profile removes or renames meanwhile."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            yield path.stat(), path


def remove_oldest(folder: Path, most_bytes: int) -> None:
    """Removes the files that were written first until the others take at most ``most_bytes``."""
    files = sorted(kept_models(folder), key=lambda found: found[0].st_mtime)
    total = sum(status.st_size for status, _ in files)
    for status, path in files:
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= status.st_size
