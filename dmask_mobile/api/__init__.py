"""The steps of the chain, one function for each step. Users call them as ``dm.NAME`` after ``import dmask_mobile as
dm``.

A path is a str, a Path or an object with ``__fspath__``, such as a `Run` or a latency table. Where several formats,
tables and so on are accepted, a single one may be given without a list. A module is loaded when one of its names is
first used.

Only this package and the command line import all three packages, and only inside functions, because a user's folder may
contain another ``export.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmask_mobile.api.chain import demo
    from dmask_mobile.api.describing import write_card
    from dmask_mobile.api.devices import examine_installation, list_devices
    from dmask_mobile.api.exporting import ExportSettings, export, skipped_exports, start_run
    from dmask_mobile.api.importing import ImportedSpace, import_space
    from dmask_mobile.api.reporting import plot_search, report, status
    from dmask_mobile.api.runs import Run
    from dmask_mobile.api.searching import default_settings, estimate_search, search
    from dmask_mobile.api.sweeping import sweep
    from dmask_mobile.api.tables import check_device, evaluate_table, load_table, profile, profile_missing
    from dmask_mobile.api.testing import measure_accuracy
    from dmask_mobile.api.training import estimate_train, train
    from dmask_mobile.api.verifying import VerifySettings, verify
    from dmask_mobile.cost_names import all_costs, cost_model, load_cost
    from dmask_mobile.data.source import DataSource
    from dmask_mobile.errors import DmaskError
    from dmask_mobile.quantities import Times
    from dmask_mobile.records.data import DataOptions
    from dmask_mobile.records.space import SearchSpace, load_space
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.machine import Machine
    from dmask_mobile.training.train import TrainSettings
    from latency_tables.devices.options import DeviceOptions
    from latency_tables.profiling.settings import ProfileSettings

__all__ = [
    "DataOptions",
    "DataSource",
    "DeviceOptions",
    "DmaskError",
    "ExportSettings",
    "ImportedSpace",
    "Machine",
    "ProfileSettings",
    "Run",
    "SearchSettings",
    "SearchSpace",
    "Times",
    "TrainSettings",
    "VerifySettings",
    "all_costs",
    "check_device",
    "cost_model",
    "default_settings",
    "demo",
    "estimate_search",
    "estimate_train",
    "evaluate_table",
    "examine_installation",
    "export",
    "import_space",
    "list_devices",
    "load_cost",
    "load_space",
    "load_table",
    "measure_accuracy",
    "plot_search",
    "profile",
    "profile_missing",
    "report",
    "search",
    "skipped_exports",
    "start_run",
    "status",
    "sweep",
    "train",
    "verify",
    "write_card",
]

MODULES = {
    "DataOptions": "dmask_mobile.records.data",
    "DataSource": "dmask_mobile.data.source",
    "DeviceOptions": "latency_tables.devices.options",
    "DmaskError": "dmask_mobile.errors",
    "ExportSettings": "dmask_mobile.api.exporting",
    "ImportedSpace": "dmask_mobile.api.importing",
    "Machine": "dmask_mobile.training.machine",
    "ProfileSettings": "latency_tables.profiling.settings",
    "Run": "dmask_mobile.api.runs",
    "SearchSettings": "dmask_mobile.search.settings",
    "SearchSpace": "dmask_mobile.records.space",
    "Times": "dmask_mobile.quantities",
    "TrainSettings": "dmask_mobile.training.train",
    "VerifySettings": "dmask_mobile.api.verifying",
    "all_costs": "dmask_mobile.cost_names",
    "check_device": "dmask_mobile.api.tables",
    "cost_model": "dmask_mobile.cost_names",
    "default_settings": "dmask_mobile.api.searching",
    "demo": "dmask_mobile.api.chain",
    "estimate_search": "dmask_mobile.api.searching",
    "estimate_train": "dmask_mobile.api.training",
    "evaluate_table": "dmask_mobile.api.tables",
    "examine_installation": "dmask_mobile.api.devices",
    "export": "dmask_mobile.api.exporting",
    "import_space": "dmask_mobile.api.importing",
    "list_devices": "dmask_mobile.api.devices",
    "load_cost": "dmask_mobile.cost_names",
    "load_space": "dmask_mobile.records.space",
    "load_table": "dmask_mobile.api.tables",
    "measure_accuracy": "dmask_mobile.api.testing",
    "plot_search": "dmask_mobile.api.reporting",
    "profile": "dmask_mobile.api.tables",
    "profile_missing": "dmask_mobile.api.tables",
    "report": "dmask_mobile.api.reporting",
    "search": "dmask_mobile.api.searching",
    "skipped_exports": "dmask_mobile.api.exporting",
    "start_run": "dmask_mobile.api.exporting",
    "status": "dmask_mobile.api.reporting",
    "sweep": "dmask_mobile.api.sweeping",
    "train": "dmask_mobile.api.training",
    "verify": "dmask_mobile.api.verifying",
    "write_card": "dmask_mobile.api.describing",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from dmask_mobile.cost_names import our_package

    module = MODULES[name]
    our_package(module.partition(".")[0])
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
