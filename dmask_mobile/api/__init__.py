"""The public Python API: the chain from a device to a verified model, one function a step.

>>> from dmask_mobile import api                                        # doctest: +SKIP
>>> space = api.load_space("demo")                                      # doctest: +SKIP
>>> api.profile(space, "table.jsonl")                                   # doctest: +SKIP
>>> api.search(space, "glyphs", {"latency": 0.07}, "run", tables="table.jsonl")  # doctest: +SKIP
>>> api.train("run"); api.export("run", "onnx"); api.verify("run").passed        # doctest: +SKIP

A path is a str or a Path; where several formats, tables or the like may be given, one may stand alone.

This package and the command line are the only ones that see all three packages, and only inside functions: a user's
folder may hold an ``export.py`` of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dmask_mobile.api.chain import demo
from dmask_mobile.api.describing import write_card
from dmask_mobile.api.devices import examine_installation, list_devices
from dmask_mobile.api.exporting import ExportSettings, export, skipped_exports, start_run
from dmask_mobile.api.reporting import report, status
from dmask_mobile.api.searching import estimate_search, search
from dmask_mobile.api.sweeping import sweep
from dmask_mobile.api.tables import evaluate_table, profile, profile_missing
from dmask_mobile.api.testing import measure_accuracy
from dmask_mobile.api.training import estimate_train, train
from dmask_mobile.api.verifying import VerifySettings, verify
from dmask_mobile.cost_names import all_costs, cost_model, load_cost, our_package
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import load_space

if TYPE_CHECKING:
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.machine import Machine
    from dmask_mobile.training.train import TrainSettings
    from latency_tables.devices.options import DeviceOptions
    from latency_tables.profiling.settings import ProfileSettings

__all__ = [
    "DataOptions",
    "DeviceOptions",
    "ExportSettings",
    "Machine",
    "ProfileSettings",
    "SearchSettings",
    "TrainSettings",
    "VerifySettings",
    "all_costs",
    "cost_model",
    "demo",
    "estimate_search",
    "estimate_train",
    "evaluate_table",
    "examine_installation",
    "export",
    "list_devices",
    "load_cost",
    "load_space",
    "measure_accuracy",
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

LOADED_WHEN_ASKED_FOR = {
    "DeviceOptions": "latency_tables.devices.options",
    "Machine": "dmask_mobile.training.machine",
    "ProfileSettings": "latency_tables.profiling.settings",
    "SearchSettings": "dmask_mobile.search.settings",
    "TrainSettings": "dmask_mobile.training.train",
}
"""Settings by their modules, which import PyTorch or another package of ours."""


def __getattr__(name: str) -> Any:
    if name not in LOADED_WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = LOADED_WHEN_ASKED_FOR[name]
    our_package(module.partition(".")[0])
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
