"""Models of blocks and networks: converted once, kept on disk, by several processes where a runtime is slow at it.

LiteRT and ExecuTorch take seconds for a block, whatever its size. What was converted is kept by a digest of all that it
depends on, so that more rounds, another device or a second start convert nothing again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue

import torch

from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import temporary_beside
from latency_tables.conversion.subjects import SUBJECT, convert_subject
from latency_tables.conversion.worker import ConverterProcess
from latency_tables.runtimes.runtime import Runtime
from latency_tables.sources import source_digest
from latency_tables.table.rows import Subject
from latency_tables.user_cache import user_cache

MAX_PROCESSES = 4  # each takes up to 1.5 GB
MIN_FOR_PROCESSES = 6  # models: starting a process takes as long as converting about so many
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


class Converter:
    """Converts subjects for one runtime and precision; use `converter_for`.

    Args:
        runtime: whose format.
        precision: of the models.
        folder: of the cache.
    """

    def __init__(self, runtime: Runtime, precision: Precision, folder: Path) -> None:
        self.runtime = runtime
        self.precision = precision
        self.folder = folder
        self.slow = runtime.converts_slowly(precision)
        self._idle: SimpleQueue[ConverterProcess] = SimpleQueue()
        self._processes: list[ConverterProcess] = []
        self._lock = threading.Lock()

    def convert_all(self, subjects: Sequence[Subject], progress: Progress = silent) -> None:
        """Makes ready what is not in the cache, where that pays; what cannot be converted `model` tells."""
        if not self.slow:
            return
        missing = [s for s in dict.fromkeys(subjects) if not self._path(s).exists()]
        if len(missing) < MIN_FOR_PROCESSES:
            return
        self._start_processes()
        with ThreadPoolExecutor(self._idle.qsize()) as pool:
            tasks = [pool.submit(self._convert_elsewhere, subject) for subject in missing]
            try:
                for done, task in enumerate(as_completed(tasks), start=1):
                    task.result()
                    progress("convert", done, len(missing))
            except BaseException:  # a full disk, a wish to stop
                pool.shutdown(cancel_futures=True)
                raise

    def model(self, subject: Subject) -> bytes:
        """The model of ``subject``, from the cache where it is there.

        Raises:
            Exception: whatever the converter raises.
        """
        with self._lock:  # converters redirect the process's outputs
            if not self.slow:
                return convert_subject(subject, self.runtime, self.precision)
            path = self._path(subject)
            try:
                return path.read_bytes()
            except FileNotFoundError:
                content = convert_subject(subject, self.runtime, self.precision)
                self._keep(path, content)
                return content

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.close()

    def _start_processes(self) -> None:
        while len(self._processes) < min(MAX_PROCESSES, os.cpu_count() or 1):
            self._idle.put(self._new_process())

    def _new_process(self) -> ConverterProcess:
        process = ConverterProcess(self.runtime.name, self.precision)
        self._processes.append(process)
        return process

    def _convert_elsewhere(self, subject: Subject) -> None:
        process = self._idle.get()
        try:
            content = process.convert(SUBJECT.dump_python(subject, mode="json"))
        finally:
            self._idle.put(process if process.alive else self._new_process())
        if content is not None:
            self._keep(self._path(subject), content)

    def _keep(self, path: Path, content: bytes) -> None:
        with temporary_beside(path) as temporary:
            temporary.write_bytes(content)

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
    """A converter with its cache, in ``folder`` or where this user's caches are; its processes end with the block."""
    with closing(Converter(runtime, precision, folder or cache_folder())) as converter:
        if converter.slow:  # what converts at once keeps nothing
            converter.folder.mkdir(parents=True, exist_ok=True)
            remove_oldest(converter.folder, CACHE_BYTES)
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
