"""Functions that several steps of a run need: its images, its trained network, its record and its lock."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.ranks import is_main_process
from dmask_mobile.records.data import DataOptions

if TYPE_CHECKING:
    from dmask_mobile.api.arguments import AnyData
    from dmask_mobile.data.images import ImageData
    from dmask_mobile.data.load import OpenedData
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.run import RunFolder, RunRecord

Taken = ParamSpec("Taken")
Returned = TypeVar("Returned")


def locks_run(doing: str, *, new: bool = False) -> Callable[[Callable[Taken, Returned]], Callable[Taken, Returned]]:
    """A decorator that locks the run folders of a function while it runs, so that no other command can use them.

    The run folders are those that the arguments ``run`` and ``target`` name, and those that contain an exported model
    that they name. If a command has several processes, only the main one locks.

    Args:
        doing: the command, such as ``dmask export``, for the message to a command that is refused.
        new: create the folder; otherwise nothing is locked if there is no run.
    """

    def decorate(function: Callable[Taken, Returned]) -> Callable[Taken, Returned]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def locking(*args: Taken.args, **kwargs: Taken.kwargs) -> Returned:
            from dmask_mobile.run import RunFolder

            given = signature.bind(*args, **kwargs).arguments
            with ExitStack() as locks:
                if is_main_process():
                    for folder in _run_folders([given.get("run"), given.get("target")], new):
                        locks.enter_context(RunFolder(folder).locked(doing))
                return function(*args, **kwargs)

        return locking

    return decorate


def _run_folders(arguments: Iterable[object], new: bool) -> list[Path]:
    """The run folders of arguments that are paths or sequences of paths: each folder once, sorted by real path.

    All commands lock in this order, so that of two commands one gets all its folders.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        for value in argument if isinstance(argument, Sequence) and not isinstance(argument, str) else (argument,):
            if isinstance(value, str | os.PathLike):
                path = Path(value)
                folder = path if new or (path / "run.json").exists() else run_of_model(path)
                if folder is not None:
                    found.setdefault(folder.resolve(), folder)
    return [found[real] for real in sorted(found)]


def run_of_model(path: Path) -> Path | None:
    """The run folder one of whose folders contains the model ``path``; None if no run does."""
    try:
        above = path.resolve().parent.parent
    except (OSError, RuntimeError):  # symbolic links in a circle
        return None
    return above if (above / "run.json").exists() else None


def check_not_sweep(folder: RunFolder) -> None:
    """Checks that a new run would not be written into the folder of a sweep.

    Raises:
        DmaskError: if it would.
    """
    from dmask_mobile.sweep.design import SweepFolder

    sweep = SweepFolder(folder.path)
    if sweep.design_path.exists() or sweep.result_path.exists():
        raise DmaskError(
            f"'{folder.path}' is the folder of a sweep, whose runs are in '{sweep.runs_path}'",
            "choose another run folder with -o",
        )


def data_of(
    record: RunRecord,
    child: ChildSpec,
    data: AnyData | None,
    check_classes: bool = True,
    options: DataOptions | None = None,
    progress: Progress = silent,
) -> ImageData:
    """The training and validation images of the run, or of ``data``, at the resolution of its child.

    Raises:
        DmaskError: if no data is known, it has another number of classes, or it has changed since the run was made.
    """
    from dmask_mobile.data.load import load_data
    from dmask_mobile.data.registry import name_of

    source = _source(record, data)
    images = load_data(
        source, decoded_at(record, child), record.data_options.with_said(options), progress, crop=crop_of(record)
    )
    images = (images.normalized_by(record.space.input) if record.space else images).at(child.resolution)
    if data is None and record.data_digest not in (None, images.digest):
        raise DmaskError(
            f"data '{name_of(source)}' has changed since the run was made",
            "restore it, or set it again with --data DATA",
        )
    if check_classes:
        _check_classes(name_of(source), images.classes, child)
    return images


def opened_data(record: RunRecord, child: ChildSpec, data: AnyData | None, check_classes: bool = True) -> OpenedData:
    """The splits of the run's data, or of ``data``; none of them is opened yet.

    Raises:
        DmaskError: in the same cases as `data_of`.
    """
    from dmask_mobile.data.load import open_data

    source = _source(record, data)
    found = open_data(source, record.data_digest if data is None else None)
    if check_classes:
        _check_classes(found.spec, len(found.class_names), child)
    return found


def _source(record: RunRecord, data: AnyData | None) -> AnyData:
    from dmask_mobile.data.registry import HOW_TO_NAME

    if source := data or record.data:
        return source
    raise DmaskError("this run has no record of its data", f"{HOW_TO_NAME}, with --data")


def _check_classes(source: str, classes: int, child: ChildSpec) -> None:
    if classes != child.classes:
        raise DmaskError(
            f"data '{source}' has {classes} classes, but the child has {child.classes}", "give the data of the search"
        )


def decoded_at(record: RunRecord, child: ChildSpec) -> int:
    """The resolution in pixels at which a run's images are decoded."""
    return record.space.resolution if record.space else child.resolution


def crop_of(record: RunRecord) -> float:
    """The share of the shorter side that a run's images keep."""
    return record.space.input.crop if record.space else 1.0


def trained_network(folder: RunFolder) -> ChildNetwork:
    """The run's child with its trained weights.

    Raises:
        DmaskError: if it has no weights, or the file is damaged or does not have the checksum in ``run.json``.
    """
    from dmask_mobile.nets.build import build
    from dmask_mobile.training.checkpoint import load_weights

    child = folder.child()
    if not folder.weights_path.exists():
        raise DmaskError(f"'{folder.path}' has no trained weights", "train the child first: dmask train RUN")
    network = build(child)
    load_weights(folder.weights_path, network, child.digest(), folder.record().weights_sha256)
    return network


def check_beginning(restart: bool, previous: bool) -> None:
    """Checks that a command is not told both to start again and to continue.

    Raises:
        DmaskError: if it is.
    """
    if restart and previous:
        raise DmaskError("--restart removes all checkpoints, but --previous continues from one", "give one of them")


def new_record(images: ImageData, options: DataOptions) -> RunRecord:
    """The record of a new run on ``images``, before anything is searched or trained."""
    from dmask_mobile.records.artifact import Preprocessing
    from dmask_mobile.run import RunRecord, installed_versions

    return RunRecord(
        created=now(),
        versions=installed_versions(),
        preprocessing=Preprocessing(
            orientation="EXIF applied",
            transparency="on white",
            mean=images.mean,
            std=images.std,
            source_resolution=images.decoded_at,
            resize_resolution=resized if (resized := images.train.pictures.resized) != images.decoded_at else None,
        ),
        class_names=images.class_names,
        data=images.spec,
        data_digest=images.digest,
        data_options=options,
        data_notes=images.notes,
    )
