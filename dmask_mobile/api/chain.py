"""The whole chain in one call."""

from __future__ import annotations

from dmask_mobile.api.arguments import AnyPath, as_path
from dmask_mobile.api.exporting import export
from dmask_mobile.api.runs import Run
from dmask_mobile.api.searching import search
from dmask_mobile.api.tables import profile
from dmask_mobile.api.training import train
from dmask_mobile.api.verifying import VerifySettings, verify
from dmask_mobile.cost_names import cost_model
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.space import load_space

DEMO_SEARCH_EPOCHS, DEMO_TRAIN_EPOCHS = 8, 12


def demo(folder: AnyPath, *, seed: int = 0, progress: Progress = silent) -> Run:
    """Runs the whole chain on the space ``demo`` and rendered characters, in a new run folder below ``folder``.

    The latency budget is the middle of the range that the space can reach on this machine.

    Returns:
        The run, with exports in ONNX and Core ML and their verification.
    """
    from dmask_mobile.run import new_run_path
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.train import TrainSettings

    space = load_space("demo")
    path = new_run_path(as_path(folder), "demo")
    table = profile(space, path / "table.jsonl", progress=progress)
    low, high = cost_model("latency", table).on(space).reachable()
    settings = SearchSettings(epochs=DEMO_SEARCH_EPOCHS, seed=seed)
    budgets = {"latency": (low + high) / 2}
    run = search(space, "glyphs", budgets, path, tables=table, allow_drift=True, settings=settings, progress=progress)
    train(run, settings=TrainSettings(epochs=DEMO_TRAIN_EPOCHS, seed=seed), progress=progress)
    export(run, ["onnx", "coreml"], progress=progress)
    verify(run, settings=VerifySettings(allow_drift=True), progress=progress)
    return run
