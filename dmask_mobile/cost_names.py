"""Costs by the names that users give them, and our own packages by theirs.

On the API's floor, because a latency cost needs a table: only here, in the API and in the command line do the three
packages meet, inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dmask_mobile.errors import DmaskError

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel


def our_package(package: str) -> ModuleType:
    """Our top-level package ``export`` or ``latency_tables``.

    Raises:
        DmaskError: naming the file when another module of that name was found first.
    """
    import importlib

    module = importlib.import_module(package)
    if not hasattr(module, "__path__") or not (Path(next(iter(module.__path__))) / "py.typed").exists():
        raise DmaskError(
            f"'import {package}' found '{getattr(module, '__file__', module)}', not dmask-mobile's package",
            "start Python outside that folder, or with 'python -P', or use the 'dmask' command",
        )
    return module


def load_cost(path: str) -> CostModel:
    """An instance of the user's cost class ``module:Class``, imported from the current folder or the Python path.

    Raises:
        DmaskError: when the module or the class is not there, or it is not an `AdditiveCost`.
    """
    import importlib
    import sys

    from dmask_mobile.costs.model import AdditiveCost

    module_name, _, class_name = path.partition(":")
    sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DmaskError(
            f"cannot load cost '{path}': {error}", "give module:Class, for example mycosts:Depth"
        ) from error
    finally:
        sys.path.pop()
    if not (isinstance(found, type) and issubclass(found, AdditiveCost)):
        raise DmaskError(
            f"cost '{path}' must be a subclass of dmask_mobile.costs.model.AdditiveCost, got {found!r}",
            "see examples/depth_cost.py",
        )
    return found()


def cost_model(name: str, table: Path | None, costs: Sequence[CostModel] = ()) -> CostModel:
    """The cost ``name``: one of ``costs``, or built in (``macs``, ``params``, ``latency`` with a table of this device).

    Raises:
        DmaskError: for an unknown name, and for latency without a table or with one of another device.
    """
    from dmask_mobile.costs.counts import Macs, Params

    for cost in costs:
        if cost.name == name:
            return cost
    if name == "macs":
        return Macs()
    if name == "params":
        return Params()
    if name != "latency":
        known = ", ".join(["latency", "macs", "params", *(cost.name for cost in costs)])
        raise DmaskError(f"no cost '{name}'", f"there are {known}; bring your own with --cost module:Class")
    if table is None:
        raise DmaskError("a latency budget needs a latency table", "give --table, made with 'dmask profile'")
    our_package("latency_tables")
    from dmask_mobile.costs.latency import Latency
    from latency_tables.probe import setup_of
    from latency_tables.table import LatencyTable

    read = LatencyTable.read(table)
    setup_of(read)
    return Latency(read)
