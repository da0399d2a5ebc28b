"""The images and the trained network of a run, and its lock."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from dmask_mobile.errors import DmaskError

if TYPE_CHECKING:
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.run import RunFolder, RunRecord
    from dmask_mobile.training.data import ImageData

Taken = ParamSpec("Taken")
Returned = TypeVar("Returned")


def locks_run(doing: str, *, new: bool = False) -> Callable[[Callable[Taken, Returned]], Callable[Taken, Returned]]:
    """A decorator: while the function runs, no other command works in its run folder.

    The run folder is the argument ``run``, or else ``target``.

    Args:
        doing: the command, for whoever is refused: ``dmask export``.
        new: makes the folder; else nothing is locked where there is none.
    """

    def decorate(function: Callable[Taken, Returned]) -> Callable[Taken, Returned]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def locking(*args: Taken.args, **kwargs: Taken.kwargs) -> Returned:
            from dmask_mobile.run import RunFolder

            given = signature.bind(*args, **kwargs).arguments
            run = given.get("run") or given.get("target")
            if not isinstance(run, str | os.PathLike) or not (new or Path(run).is_dir()):
                return function(*args, **kwargs)
            with RunFolder(Path(run)).locked(doing):
                return function(*args, **kwargs)

        return locking

    return decorate


def data_of(record: RunRecord, child: ChildSpec, data: str | None, check_classes: bool = True) -> ImageData:
    """The run's images, or those of ``data``, as its child sees them.

    Raises:
        DmaskError: when no data is known, or it has another number of classes.
    """
    from dmask_mobile.training.data import load_data

    source = data or record.data
    if source is None:
        raise DmaskError("this run names no data", "give --data glyphs, fashion-mnist or a folder")
    resolution = record.space.resolution if record.space else child.resolution
    images = load_data(source, resolution).at(child.resolution)
    if check_classes and images.classes != child.classes:
        raise DmaskError(
            f"data '{source}' has {images.classes} classes, the child {child.classes}", "give the data of the search"
        )
    return images


def trained_network(folder: RunFolder) -> ChildNetwork:
    """The run's child with its trained weights.

    Raises:
        DmaskError: when it has none, or the file is damaged or another one than ``run.json`` names.
    """
    from dmask_mobile.nets.build import build
    from dmask_mobile.training.checkpoint import load_weights

    child = folder.child()
    if not folder.weights_path.exists():
        raise DmaskError(f"'{folder.path}' has no trained weights", "train the child first: dmask train RUN")
    network = build(child)
    load_weights(folder.weights_path, network, child.digest(), folder.record().weights_sha256)
    return network
