"""The public Python API: the chain from a device to a verified model, one function a step.

>>> from pathlib import Path
>>> from dmask_mobile import api                                        # doctest: +SKIP
>>> space = api.load_space("demo")                                      # doctest: +SKIP
>>> api.profile(space, Path("table.jsonl"))                             # doctest: +SKIP
>>> run = Path("run")                                                   # doctest: +SKIP
>>> api.search(space, "glyphs", {"latency": 0.07}, run, tables=[Path("table.jsonl")])  # doctest: +SKIP
>>> api.train(run); api.export(run, ["onnx", "coreml"]); api.verify(run).passed     # doctest: +SKIP

This package and the command line are the only ones that see all three packages, and only inside functions: a user's
folder may hold an ``export.py`` of its own.
"""

from dmask_mobile.api.devices import examine_installation, list_devices
from dmask_mobile.api.exporting import ExportSettings, export, skipped_exports, start_run
from dmask_mobile.api.runs import demo, search, train
from dmask_mobile.api.tables import evaluate_table, profile, profile_missing
from dmask_mobile.api.verifying import VerifySettings, verify
from dmask_mobile.cost_names import all_costs, cost_model, load_cost
from dmask_mobile.records.space import load_space

__all__ = [
    "ExportSettings",
    "VerifySettings",
    "all_costs",
    "cost_model",
    "demo",
    "evaluate_table",
    "examine_installation",
    "export",
    "list_devices",
    "load_cost",
    "load_space",
    "profile",
    "profile_missing",
    "search",
    "skipped_exports",
    "start_run",
    "train",
    "verify",
]
