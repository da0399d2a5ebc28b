"""Finds data by the text that users give: ``folder:DIR``, ``fashion-mnist``, ``mymodule:MyClass``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dmask_mobile.data.fashion_mnist import FashionMnistSource
from dmask_mobile.data.folder import FolderSource
from dmask_mobile.data.glyphs import GlyphSource
from dmask_mobile.data.hugging_face import HuggingFaceSource
from dmask_mobile.data.shards import ShardSource
from dmask_mobile.data.source import DataSource, Examples
from dmask_mobile.data.torchvision_sets import TorchvisionSource
from dmask_mobile.errors import DmaskError, code_of_user

SOURCES: dict[str, Callable[[str], DataSource]] = {
    "folder": FolderSource,
    "torchvision": TorchvisionSource,
    "hf": HuggingFaceSource,
    "wds": ShardSource,
    "fashion-mnist": FashionMnistSource,
    "glyphs": GlyphSource,
}
NEEDS_ARGUMENT = ("folder", "torchvision", "hf", "wds")
HOW_TO_NAME = (
    "give folder:DIR, torchvision:NAME:DIR, hf:DIR, wds:PATTERN, fashion-mnist, glyphs, or your own module:Class"
)
HOW_TO_MAKE = "see dmask_mobile.data.source.DataSource"


def open_source(data: str | DataSource) -> DataSource:
    """The source that ``data`` names, or ``data`` itself if it is a source; no image is decoded.

    Args:
        data: ``SOURCE[:ARGUMENT]`` with a key of `SOURCES`, the path of a folder, ``module:Class``, or a source object.
            ``module:Class`` is your own class, imported from the current folder or the Python path and called without
            arguments.

    Raises:
        DmaskError: if there is no such source, or its files do not exist.
    """
    if not isinstance(data, str):
        return _checked(data, name_of(data))
    spec = data
    name, _, argument = spec.partition(":")
    if name in SOURCES:
        if name in NEEDS_ARGUMENT and not argument:
            raise DmaskError(f"data '{spec}' does not say where the files are", HOW_TO_NAME)
        return SOURCES[name](argument)
    if Path(spec).is_dir():
        return FolderSource(spec)
    if argument and name.replace(".", "").isidentifier() and argument.isidentifier():
        return _own(name, argument)
    raise DmaskError(f"no data '{spec}'", HOW_TO_NAME)


def name_of(data: str | DataSource) -> str:
    """The name of the data in error messages: the given text, or ``module:Class`` of a source object."""
    return data if isinstance(data, str) else f"{type(data).__module__}:{type(data).__qualname__}"


def absolute_spec(data: str | DataSource) -> str | None:
    """The text for ``data`` with absolute paths, so that it names the same data from any folder.

    None for a source object, because no text may be able to describe it.
    """
    if not isinstance(data, str):
        return None
    spec = data
    name, _, argument = spec.partition(":")
    if name == "torchvision":
        kind, _, folder = argument.partition(":")
        return f"{name}:{kind}:{Path(folder).resolve()}"
    if name in SOURCES:
        return f"{name}:{Path(argument).resolve()}" if argument else name
    return f"folder:{Path(spec).resolve()}" if Path(spec).is_dir() else spec


def _own(module_name: str, class_name: str) -> DataSource:
    here = str(Path.cwd())
    if here not in sys.path:  # it is not removed: processes that decode images import the module again
        sys.path.append(here)
    with code_of_user(f"data '{module_name}:{class_name}': making it", HOW_TO_MAKE):
        source: DataSource = getattr(importlib.import_module(module_name), class_name)()
    return _checked(source, f"{module_name}:{class_name}")


def splits_of(source: DataSource) -> Mapping[str, Examples]:
    """The splits of a source.

    Raises:
        DmaskError: for what a custom source raises.
    """
    kind = type(source)
    if kind.__module__.partition(".")[0] == "dmask_mobile":
        return source.splits()
    with code_of_user(f"data '{name_of(source)}': splits()", HOW_TO_MAKE):
        return source.splits()


def _checked(source: DataSource, name: str) -> DataSource:
    """A custom source, checked for all parts of the Protocol.

    Raises:
        DmaskError: if a part is missing.
    """
    with code_of_user(f"data '{name}': its attributes", HOW_TO_MAKE):
        missing = [part for part in ("class_names", "flip", "splits") if not hasattr(source, part)]
    if missing:
        raise DmaskError(f"data '{name}' has no '{missing[0]}'", HOW_TO_MAKE)
    return source
