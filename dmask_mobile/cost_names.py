"""Finds costs by the names that users write, and our own packages by their names.

This module is on the layer of the API, because a latency cost needs a table. Only this module, the API and the command
line use all three packages, inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dmask_mobile.errors import DmaskError, code_of_user, shown
from dmask_mobile.quantities import TABLE_UNITS

if TYPE_CHECKING:
    from dmask_mobile.api.arguments import AnyPaths
    from dmask_mobile.costs.model import CostModel
    from dmask_mobile.records.artifact import Precision


def our_package(package: str) -> ModuleType:
    """Our top-level package ``export`` or ``latency_tables``.

    Raises:
        DmaskError: naming the file, if another module of that name was found first.
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
        DmaskError: if the module or the class does not exist, or it is not an `AdditiveCost`.
    """
    import importlib
    import sys

    from dmask_mobile.costs.guard import custom_code
    from dmask_mobile.costs.model import AdditiveCost

    module_name, _, class_name = path.partition(":")
    sys.path.append(str(Path.cwd()))
    try:
        with code_of_user(f"custom cost '{path}': loading it", "give module:Class, for example mycosts:Depth"):
            found = getattr(importlib.import_module(module_name), class_name)
    finally:
        sys.path.pop()
    if not (isinstance(found, type) and issubclass(found, AdditiveCost)):
        raise DmaskError(
            f"cost '{path}' must be a subclass of dmask_mobile.costs.model.AdditiveCost, got {shown(repr(found))}",
            "see examples/depth_cost.py",
        )
    with custom_code(class_name, "making it without arguments"):
        cost = found()
    for part in ("name", "unit"):
        if not isinstance(getattr(cost, part, None), str) or not getattr(cost, part):
            raise DmaskError(f"cost '{path}' must have a {part} that is a string", "see examples/depth_cost.py")
    return cost


TABLE_SEPARATOR = "@"


def named_tables(tables: AnyPaths) -> dict[str, Path]:
    """The tables by the names that budgets use: file names without suffix, or the names of shipped tables.

    Raises:
        DmaskError: if two have the same name.
    """
    from dmask_mobile.api.arguments import as_paths

    paths = as_paths(tables)
    if not paths:
        return {}
    our_package("latency_tables")
    from latency_tables.table.shipped import table_path

    named = {path.stem: table_path(path) for path in paths}
    if len(named) < len(paths):
        raise DmaskError(
            f"two tables have the same name: {', '.join(map(str, paths))}",
            "rename one: budgets refer to tables by name, latency@NAME",
        )
    return named


def cost_model(
    name: str,
    tables: AnyPaths = (),
    costs: CostModel | Sequence[CostModel] = (),
    *,
    check: bool = False,
    emulated: bool = False,
    precision: Precision | None = None,
) -> CostModel:
    """The cost ``name``: one of ``costs``, or a built-in one.

    The built-in costs are ``macs``, ``params``, ``weight_bytes``, ``peak_activation_bytes`` and, with a table,
    ``latency``, ``memory`` and ``energy``. With several tables, ``latency@NAME`` is the latency in the table with this
    file name. ``memory`` and ``energy`` are fitted to measured networks; ``peak_activation_bytes`` is counted.

    >>> low, high = dm.cost_model("latency", "epyc-onnxruntime-1thread-demo").on(dm.load_space("demo")).reachable()
    >>> 0 < low < high
    True

    Args:
        name: the cost.
        tables: latency tables.
        costs: custom costs.
        check: measure the table's sentinels first, on its device.
        emulated: take a table whose times are meaningless, as that of an emulator.
        precision: the precision of the later export; tables must have it, and weight bytes are computed for it.

    Raises:
        DmaskError: for an unknown name, for latency, memory or energy without a table or with a table of another
            precision, or if the table lacks measurements of it; with ``check`` also for a device that is absent, is a
            different one, or has drifted by more than 10% since.
    """
    from dmask_mobile.api.arguments import as_tuple

    known = [*_counted(precision), *as_tuple(costs)]
    for cost in reversed(known):
        if cost.name == name:
            return cost
    quantity = name.partition(TABLE_SEPARATOR)[0]
    if quantity not in TABLE_UNITS:
        names = ", ".join([*TABLE_UNITS, *(cost.name for cost in known)])
        raise DmaskError(f"no cost '{name}'", f"choose one of {names}, or add your own with --cost module:Class")
    path = _table_of(name, named_tables(tables))
    our_package("latency_tables")
    from dmask_mobile.costs.latency import Latency
    from latency_tables.prediction.latency_model import LatencyModel
    from latency_tables.prediction.metrics import METRICS, MetricModel
    from latency_tables.profiling.table_probe import check_drift
    from latency_tables.table.table import LatencyTable
    from latency_tables.user_cache import user_cache

    read = LatencyTable.read(path)
    if read.head.emulated and not emulated:
        raise DmaskError(
            f"'{path}' was measured on an emulator: its times are meaningless",
            "profile the device itself, or give --emulated to try out the steps",
        )
    if precision not in (None, read.head.precision):
        raise DmaskError(
            f"'{path}' is a table for {read.head.precision}, but the network will be exported in {precision}",
            f"make one: dmask profile SPACE --precision {precision} -o TABLE",
        )
    metric = None if quantity == "latency" else MetricModel(read, quantity, name)
    if check and not read.head.emulated and (metric is None or METRICS[quantity].follows_speed):
        check_drift(read)
    if metric is not None:
        return metric
    return Latency(LatencyModel(read), name, user_cache() / "cost-tensors")


def all_costs(tables: AnyPaths = (), costs: CostModel | Sequence[CostModel] = ()) -> list[CostModel]:
    """Every cost that a budget may name: built-in costs, what each table can predict, custom costs.

    >>> [cost.name for cost in dm.all_costs()]
    ['macs', 'params', 'weight_bytes', 'peak_activation_bytes']
    """
    from dmask_mobile.api.arguments import as_tuple

    return [
        *_counted(),
        *(cost_model(name, tables, emulated=True) for name in _predictable(named_tables(tables))),
        *as_tuple(costs),
    ]


def quantity_names(quantity: str, tables: Iterable[str]) -> dict[str, str]:
    """The name of a quantity of each table: ``latency`` if there is only one table, otherwise ``latency@NAME``."""
    names = list(tables)
    return {name: quantity if len(names) == 1 else f"{quantity}{TABLE_SEPARATOR}{name}" for name in names}


def _predictable(named: Mapping[str, Path]) -> list[str]:
    """The names of the latencies of all tables, and of the metrics that they hold."""
    if not named:
        return []
    from latency_tables.prediction.metrics import METRICS, what_is_lacking
    from latency_tables.table.table import LatencyTable

    read = {name: LatencyTable.read(path) for name, path in named.items()}
    return [
        *quantity_names("latency", named).values(),
        *(
            line
            for metric in METRICS
            for name, line in quantity_names(metric, named).items()
            if what_is_lacking(read[name], metric) is None
        ),
    ]


def _counted(precision: Precision | None = None) -> list[CostModel]:
    from dmask_mobile.costs.counts import Macs, Params
    from dmask_mobile.costs.memory import PeakActivationBytes, WeightBytes

    return [Macs(), Params(), WeightBytes(precision or "fp32"), PeakActivationBytes()]


def _table_of(cost: str, tables: Mapping[str, Path]) -> Path:
    """The table that the name of a latency refers to."""
    if not tables:
        what = cost.partition(TABLE_SEPARATOR)[0]
        raise DmaskError(f"a {what} budget needs a latency table", "give --table, made with 'dmask profile'")
    name = cost.partition(TABLE_SEPARATOR)[2]
    if not name and len(tables) > 1:
        raise DmaskError(
            f"'{cost}' must name one of the tables {', '.join(tables)}", f"give {cost}@{next(iter(tables))}"
        )
    if name and name not in tables:
        raise DmaskError(
            f"no table '{name}' for the budget {cost}", f"give --table; the tables are {', '.join(tables)}"
        )
    return tables[name or next(iter(tables))]
