"""A run, step by step: search, train; and the whole chain in one demo."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, AnyPaths, as_path, as_tuple, check_limits
from dmask_mobile.api.describing import describe_training
from dmask_mobile.api.exporting import export
from dmask_mobile.api.run_data import data_of, locks_run
from dmask_mobile.api.tables import profile
from dmask_mobile.api.verifying import VerifySettings, verify
from dmask_mobile.clock import now
from dmask_mobile.cost_names import cost_model, named_tables
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import hash_path
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import SearchSpace, load_space

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel
    from dmask_mobile.data.images import ImageData
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.artifact import Precision
    from dmask_mobile.records.verification import Verification
    from dmask_mobile.run import RunFolder, RunRecord, SearchResultRecord
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.train import TrainSettings

OF_DATA = {"preprocessing", "class_names", "data", "data_digest", "data_options", "data_notes"}  # of a run's record
DEMO_SEARCH_EPOCHS, DEMO_TRAIN_EPOCHS = 16, 12


@locks_run("dmask search", new=True)
def search(
    space: SearchSpace,
    data: str,
    budgets: Mapping[str, float],
    run: AnyPath,
    *,
    tables: AnyPaths = (),
    costs: CostModel | Sequence[CostModel] = (),
    samples: int = 1,
    allow_drift: bool = False,
    emulated: bool = False,
    precision: Precision | None = None,
    settings: SearchSettings | None = None,
    restart: bool = False,
    data_options: DataOptions | None = None,
    progress: Progress = silent,
) -> SearchResultRecord:
    """Searches ``space`` and writes ``child.json`` into the run folder; goes on with an unfinished search there.

    Args:
        space: the space; its classes become the data's.
        data: see `dmask_mobile.data.registry.open_source`.
        budgets: cost names (see `cost_model`) and the most of each, in ms, macs, params, bytes.
        run: the run folder.
        tables: the latency tables that latency budgets need.
        costs: cost models of your own that the budget may name.
        samples: more than 1 draws so many children within the budgets and takes the most accurate one.
        allow_drift: search although the device has become more than 10% slower or faster than its table says, or is
            not at hand.
        emulated: search although a table's times mean nothing, being an emulator's.
        precision: what the child will be exported in: tables must be of it, and ``weight_bytes`` counts so.
        settings: length and rates of the search.
        restart: forget an earlier search in this folder, finished or not, once everything here has been checked.
        data_options: memory, workers, mirroring.
        progress: told while images are read and after each epoch.

    Raises:
        DmaskError: for bad input, and for a budget out of reach before anything is trained.
    """
    from dmask_mobile.costs.guard import custom_code
    from dmask_mobile.data.load import load_data
    from dmask_mobile.run import BudgetRecord, RunFolder
    from dmask_mobile.search.budgets import Budget, check_budgets
    from dmask_mobile.search.result import choose_child
    from dmask_mobile.search.search import Searcher
    from dmask_mobile.search.settings import SearchSettings

    check_limits(budgets)
    run, costs = as_path(run), as_tuple(costs)
    folder, settings = RunFolder(run), settings or SearchSettings()
    _check_free(folder, restart)
    find = functools.partial(cost_model, check=not allow_drift, emulated=emulated, precision=precision)
    models = {name: find(name, tables, costs) for name in budgets}  # before data is read, which may take long
    images = load_data(data, space.resolution, data_options or DataOptions(), progress)
    space = space.with_classes(images.classes)
    held = []
    for name, limit in budgets.items():
        model = models[name]
        with custom_code(name, "on") if model in costs else nullcontext():
            held.append(Budget(model.on(space), limit))
    check_budgets(held)
    custom = {cost.name for cost in costs}
    record = _new_record(images, data_options or DataOptions()).model_copy(
        update={
            "space": space,
            "budgets": tuple(
                BudgetRecord(cost=b.cost.name, limit=b.limit, unit=b.cost.unit, custom=b.cost.name in custom)
                for b in held
            ),
            "precision": precision,
            "search_settings": settings.model_dump(mode="json"),
        }
    )
    searcher = Searcher(space, images, held, settings)
    if restart:
        _remove_search(folder)
    if not folder.search_checkpoint.exists():  # else this goes on with a search, whose record must stay as it is
        _begin(folder, record, tables)
    found = searcher.run(folder.search_checkpoint, progress)
    result = choose_child(searcher, found, samples, progress)
    space.child(result.choice, f"{space.name}-{run.name}").write(folder.child_path)
    result.write(folder.search_result)
    return result


def _check_free(folder: RunFolder, restart: bool) -> None:
    """Checks that a search may write into a folder.

    Raises:
        DmaskError: when a search has ended there, or it holds a network from elsewhere.
    """
    elsewhere = "choose another run folder with -o"
    if folder.search_result.exists() and not restart:
        raise DmaskError(
            f"'{folder.path}' already holds a finished search", f"begin anew with --restart, or {elsewhere}"
        )
    searched = folder.search_checkpoint.exists() or folder.search_result.exists()
    if folder.child_path.exists() and not searched:
        raise DmaskError(f"'{folder.path}' holds a network that no search made", elsewhere)


def _remove_search(folder: RunFolder) -> None:
    """Removes what an earlier search left. Trained weights and exports stay until they are made again."""
    # The result first: without it the search counts as unfinished, wherever this is interrupted.
    for path in (folder.search_result, folder.child_path, folder.search_checkpoint, folder.metrics_path):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder.tensorboard_path, ignore_errors=True)


def _begin(folder: RunFolder, record: RunRecord, tables: AnyPaths) -> None:
    """Writes the record of a new search, and copies its tables."""
    copies = {name: table.read_bytes() for name, table in named_tables(tables).items()}  # may lie in this very folder
    if folder.record_path.exists():  # of a start that left no checkpoint, or of a search that begins anew
        shutil.rmtree(folder.tables_path, ignore_errors=True)
    folder.tables_path.mkdir(parents=True, exist_ok=True)
    record.write(folder.record_path)
    for name, content in copies.items():
        (folder.tables_path / f"{name}.jsonl").write_bytes(content)


@locks_run("dmask train")
def train(
    run: AnyPath,
    *,
    data: str | None = None,
    settings: TrainSettings | None = None,
    restart: bool = False,
    data_options: DataOptions | None = None,
    progress: Progress = silent,
) -> float:
    """Trains the run's child; returns its top-1 accuracy. Goes on after an interruption.

    Args:
        run: the run folder.
        data: other data than the run's own.
        data_options: memory, workers, mirroring, if not as the search had them.
        settings: the recipe, and whether to start from random weights or from the child's slice of the supernet.
        restart: forget an earlier training; its weights are kept until this one ends.
        progress: told after each epoch.

    Raises:
        DmaskError: when the folder has no child, no data is known or the classes differ.
    """
    import torch

    from dmask_mobile.nets.build import build
    from dmask_mobile.run import RunFolder
    from dmask_mobile.training.checkpoint import save_weights
    from dmask_mobile.training.train import TrainSettings, train_child

    settings = settings or TrainSettings()
    folder = RunFolder(as_path(run))
    record, child = folder.record(), folder.child()
    images = data_of(record, child, data, options=data_options, progress=progress)
    network = build(child, torch.Generator().manual_seed(settings.seed))
    if settings.init == "supernet":
        network.load_state_dict(_slice_of_supernet(folder).state_dict())
    if restart:
        folder.train_checkpoint.unlink(missing_ok=True)
    digest = child.digest()
    accuracy = train_child(network, images, settings, folder.train_checkpoint, progress, child_digest=digest)
    save_weights(folder.weights_path, network, digest)
    update = {
        **_new_record(images, record.data_options.with_said(data_options)).model_dump(include=OF_DATA),
        "train_settings": settings.model_dump(mode="json"),
        "accuracy": accuracy,
        "weights_sha256": hash_path(folder.weights_path),
    }
    type(record).model_validate({**record.model_dump(), **update}).write(folder.record_path)
    describe_training(folder, network, images, progress)
    return accuracy


def _slice_of_supernet(folder: RunFolder) -> ChildNetwork:
    """The child with its slice of the supernet's weights."""
    from dmask_mobile.search.checkpoint import restore_supernet
    from dmask_mobile.supernet.subnet import extract_subnet
    from dmask_mobile.supernet.supernet import MaskedSupernet

    space = folder.record().space
    if space is None or not folder.search_result.exists():
        raise DmaskError(f"'{folder.path}' holds no finished search to inherit from", "train with --init scratch")
    result, supernet = folder.result(), MaskedSupernet(space)
    restore_supernet(folder.search_checkpoint, supernet)
    return extract_subnet(supernet, result.choice)


def demo(folder: AnyPath, *, seed: int = 0, progress: Progress = silent) -> tuple[Path, Verification]:
    """The whole chain on the space ``demo`` and rendered characters, in a new run folder below ``folder``.

    The latency budget lies in the middle of what the space can reach on this machine.

    Returns:
        The run folder and the verification of the ONNX and Core ML exports.
    """
    from dmask_mobile.run import new_run_path
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.train import TrainSettings

    space = load_space("demo")
    run = new_run_path(as_path(folder), "demo")
    table = run / "table.jsonl"
    profile(space, table, progress=progress)
    low, high = cost_model("latency", [table]).on(space).reachable()
    settings = SearchSettings(epochs=DEMO_SEARCH_EPOCHS, seed=seed)
    budgets = {"latency": (low + high) / 2}
    search(space, "glyphs", budgets, run, tables=[table], allow_drift=True, settings=settings, progress=progress)
    train(run, settings=TrainSettings(epochs=DEMO_TRAIN_EPOCHS, seed=seed), progress=progress)
    export(run, ["onnx", "coreml"], progress=progress)
    return run, verify(run, settings=VerifySettings(allow_drift=True), progress=progress)


def _new_record(images: ImageData, options: DataOptions) -> RunRecord:
    from dmask_mobile.records.artifact import Preprocessing
    from dmask_mobile.run import RunRecord, installed_versions

    return RunRecord(
        created=now(),
        versions=installed_versions(),
        preprocessing=Preprocessing(
            orientation="EXIF applied",
            transparency="on white",
            mean=images.mean,
            std=images.std,
            source_resolution=images.decoded_at,
        ),
        class_names=images.class_names,
        data=images.spec,
        data_digest=images.digest,
        data_options=options,
        data_notes=images.notes,
    )
