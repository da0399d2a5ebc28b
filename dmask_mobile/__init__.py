"""Hardware-aware search and deployment of vision networks for phones.

The chain from a space to a verified model, one function a step (the settings are those of a first try, far too short):

>>> import dmask_mobile as dm
>>> short = dm.SearchSettings(epochs=1, min_gate_steps=20)
>>> run = dm.search("demo", "folder:photos", {"macs": 1.5e6}, "runs/a", settings=short)
>>> accuracy = dm.train(run, settings=dm.TrainSettings(epochs=1))
>>> artifacts = dm.export(run, "onnx")
>>> dm.verify(run).passed
True
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmask_mobile.api import (
        DataOptions,
        DataSource,
        DeviceOptions,
        DmaskError,
        ExportSettings,
        Machine,
        ProfileSettings,
        Run,
        SearchSettings,
        SearchSpace,
        TrainSettings,
        VerifySettings,
        all_costs,
        cost_model,
        demo,
        estimate_search,
        estimate_train,
        evaluate_table,
        examine_installation,
        export,
        list_devices,
        load_cost,
        load_space,
        load_table,
        measure_accuracy,
        plot_search,
        profile,
        profile_missing,
        report,
        search,
        skipped_exports,
        start_run,
        status,
        sweep,
        train,
        verify,
        write_card,
    )

__version__: str
__all__ = [
    "DataOptions",
    "DataSource",
    "DeviceOptions",
    "DmaskError",
    "ExportSettings",
    "Machine",
    "ProfileSettings",
    "Run",
    "SearchSettings",
    "SearchSpace",
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

# ONNX Runtime 1.32 and newer collects usage data once it is imported: an identifier and a database in the user's
# cache, and a look-up of a host of its maker. It reads this variable at its import alone. Everything of ours imports
# this package first, and processes that we start inherit it; whoever wants the data collected can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


# These folders have the names of functions. Python makes a module an attribute of its package when it first loads it:
# they are loaded now, so that no later import puts a module in the place of a function. They are empty by themselves.
for _folder in ("report", "search", "sweep"):
    importlib.import_module(f"{__name__}.{_folder}")
    globals().pop(_folder, None)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes as long to load as all the rest here

    try:
        return version("dmask-mobile")
    except PackageNotFoundError:  # a source tree that was not installed
        return "0+not.installed"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dmask_mobile import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
