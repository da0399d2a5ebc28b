"""Converts the arguments that users write into the types that the functions work with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.space import SearchSpace, load_space

if TYPE_CHECKING:
    from dmask_mobile.data.source import DataSource

AnyPath = str | os.PathLike[str]
AnyPaths = AnyPath | Sequence[AnyPath]
AnySpace = SearchSpace | AnyPath
AnyData: TypeAlias = "str | DataSource"
Words = str | Sequence[str]
Item = TypeVar("Item")


def as_path(value: AnyPath) -> Path:
    """The argument as a path.

    Raises:
        DmaskError: if it is neither text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise DmaskError(f"a path is a str or a Path, got {shown(repr(value))}")
    path = Path(value)
    return path if path.name else path.resolve()  # the current folder has no name of its own


def as_space(value: AnySpace) -> SearchSpace:
    """The argument itself if it is a space, the shipped space of this name, or the space in this file.

    >>> as_space("demo").name
    'demo'

    Raises:
        DmaskError: in the same cases as `load_space`.
    """
    return value if isinstance(value, SearchSpace) else load_space(value)


def as_paths(values: AnyPaths) -> tuple[Path, ...]:
    """A tuple of paths, made from one path or several.

    >>> len(as_paths("t.jsonl")), len(as_paths(["a", "b"]))
    (1, 2)

    Raises:
        DmaskError: if one is neither text nor a path.
    """
    return tuple(as_path(value) for value in ([values] if isinstance(values, str | os.PathLike) else values))


def as_words(values: Words) -> tuple[str, ...]:
    """A tuple of words, made from one word or several.

    >>> as_words("onnx"), as_words(["onnx", "coreml"])
    (('onnx',), ('onnx', 'coreml'))
    """
    return (values,) if isinstance(values, str) else tuple(values)


def as_tuple(values: Item | Iterable[Item]) -> tuple[Item, ...]:
    """A tuple of objects, made from one object or several."""
    return tuple(values) if isinstance(values, Iterable) else (values,)


def check_limits(budgets: Mapping[str, float]) -> None:
    """Checks the limits of budgets.

    Raises:
        DmaskError: if there is no budget, or a limit is not a positive number.
    """
    if not budgets:
        raise DmaskError("a search needs a budget", "give --budget NAME=VALUE, for example latency=8ms")
    for name, limit in budgets.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < math.inf:
            raise DmaskError(
                f"budget '{shown(name)}' must be a positive number, got {shown(repr(limit))}",
                "give it in ms, macs, params or bytes",
            )
