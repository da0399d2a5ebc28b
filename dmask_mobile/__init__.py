"""Hardware-aware search and deployment of vision networks for phones.

The chain from a space to a verified model has one function for each step (these settings are only for a quick test):

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
        ImportedSpace,
        Machine,
        ProfileSettings,
        Run,
        SearchSettings,
        SearchSpace,
        Times,
        TrainSettings,
        VerifySettings,
        all_costs,
        check_device,
        cost_model,
        default_settings,
        demo,
        estimate_search,
        estimate_train,
        evaluate_table,
        examine_installation,
        export,
        import_space,
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

# ONNX Runtime 1.32 and newer collects usage data after its import: it writes an identifier and a database to the user's
# cache and looks up a host of its vendor. It reads this variable only at its import. All our code imports this package
# first, and child processes inherit the variable. Users who want to send usage data can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


# These folders have the names of functions. When Python first loads a module, it sets the module as an attribute of its
# package. So they are loaded now: a later import would replace the function by the module. Loading them is cheap,
# because they are empty.
for _folder in ("report", "search", "sweep"):
    importlib.import_module(f"{__name__}.{_folder}")
    globals().pop(_folder, None)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes as long to load as everything else here

    try:
        return version("dmask-mobile")
    except PackageNotFoundError:  # a source tree that is not installed
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
