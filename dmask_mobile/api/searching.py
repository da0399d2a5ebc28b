"""The search in a space, which is the first step of a run."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyData, AnyPath, AnyPaths, AnySpace, as_path, as_space, as_tuple, check_limits
from dmask_mobile.api.export_scoring import ExportAccuracy, parse_rank_precision
from dmask_mobile.api.importing import imported_weights
from dmask_mobile.api.run_data import check_beginning, check_not_sweep, locks_run, new_record
from dmask_mobile.api.runs import Run
from dmask_mobile.cost_names import cost_model, named_tables
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.quantities import Times
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import SearchSpace

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel, SpaceCost
    from dmask_mobile.records.artifact import Precision
    from dmask_mobile.records.estimate import Estimate
    from dmask_mobile.records.setting_names import SearchMethod
    from dmask_mobile.run import RunFolder, RunRecord
    from dmask_mobile.search.search import Searcher
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.machine import Machine

logger = logging.getLogger(__name__)


@locks_run("dmask search", new=True)
def search(
    space: AnySpace,
    data: AnyData,
    budgets: Mapping[str, float],
    run: AnyPath,
    *,
    tables: AnyPaths = (),
    costs: CostModel | Sequence[CostModel] = (),
    samples: int | None = None,
    rank_precision: str = "fp32",
    allow_drift: bool = False,
    emulated: bool = False,
    precision: Precision | None = None,
    settings: SearchSettings | None = None,
    restart: bool = False,
    previous: bool = False,
    data_options: DataOptions | None = None,
    machine: Machine | None = None,
    progress: Progress = silent,
) -> Run:
    """Searches ``space`` and returns the run with the child; resumes an unfinished search in the run folder.

    >>> short = dm.SearchSettings(epochs=1, min_gate_steps=20)
    >>> run = dm.search(dm.load_space("demo"), "folder:photos", {"macs": 1.5e6}, "runs/b", settings=short)
    >>> run.search_result.costs[0] <= 1.5e6
    True

    Args:
        space: the space, the name of a shipped space, or a file; its number of classes becomes that of the data.
        data: any argument of `dmask_mobile.data.registry.open_source`, which may be a custom source.
        budgets: the names of costs (see `cost_model`) and the limit of each, in ms, macs, params or bytes, or as
            `Times` the cost of the space's widest child.
        run: the run folder.
        tables: the latency tables that latency budgets need.
        costs: custom cost models that budgets may name.
        samples: the number of children that are drawn within the budgets; the one with the lowest loss with its weights
            from the supernet is selected. With 1, the best one by the gates is selected. None: 24 if the search trains
            a supernet and makes no trials, otherwise 1.
        rank_precision: ``int8[:FORMAT]`` ranks the children by the accuracy of their int8 exports in a format (ONNX by
            default): the five with the lowest loss are exported. Their batch norms are recalibrated first.
        allow_drift: search even if the device has become more than 10% slower or faster than its table says, or is not
            available.
        emulated: search even if a table was measured on an emulator, whose times are meaningless.
        precision: the precision of the later export; tables must have it, and ``weight_bytes`` is computed for it.
        settings: length and learning rates of the search; the default is `default_settings`.
        restart: remove an earlier search in this folder, finished or not, after all arguments have been checked.
        previous: resume from the checkpoint before the last.
        data_options: memory, workers and mirroring.
        machine: device, number format and processes; the default is one process on the best available device.
        progress: is called while images are read and after each epoch.

    Raises:
        DmaskError: for bad input, and before anything is trained for a budget that cannot be reached.
    """
    from dmask_mobile.run import RunFolder
    from dmask_mobile.search.result import check_ranking, choose_child
    from dmask_mobile.training.machine import Machine

    machine = machine or Machine()
    folder = RunFolder(as_path(run))
    check_beginning(restart, previous)
    _check_free(folder, restart)
    settings = settings or default_settings(as_space(space))
    ranked_as = parse_rank_precision(rank_precision, settings, samples)
    searcher, record = _prepared_search(
        space,
        data,
        budgets,
        tables,
        as_tuple(costs),
        # Only one process measures the device, because several would disturb each other.
        find=functools.partial(
            cost_model, check=not allow_drift and machine.is_main, emulated=emulated, precision=precision
        ),
        precision=precision,
        settings=settings,
        data_options=data_options,
        machine=machine,
        progress=progress,
    )
    check_ranking(searcher, samples)
    if machine.is_main:
        if restart:
            _remove_search(folder)
        if not folder.search_checkpoint.exists():  # otherwise a search is resumed, and its record must not change
            _begin(folder, record, tables, _original_weights(space, record))
    machine.wait()
    found = searcher.run(folder.search_checkpoint, progress, previous=previous)
    # Only one process exports, and only its result is written.
    scorer = ExportAccuracy(record, *ranked_as) if ranked_as and machine.is_main else None
    result = choose_child(searcher, found, samples, progress, scorer)
    if machine.is_main:
        space = searcher.supernet.space
        space.child(result.choice, f"{space.name}-{folder.path.name}").write(folder.child_path)
        result.write(folder.search_result)
        logger.info("'%s': the search has found a child, %s", folder.path, result.derivation)
    machine.wait()
    return Run(folder.path)


def estimate_search(
    space: AnySpace,
    data: AnyData,
    budgets: Mapping[str, float],
    *,
    tables: AnyPaths = (),
    costs: CostModel | Sequence[CostModel] = (),
    settings: SearchSettings | None = None,
    data_options: DataOptions | None = None,
    machine: Machine | None = None,
    progress: Progress = silent,
) -> Estimate:
    """Estimates the duration and memory of a search from two steps of each kind; nothing is written.

    >>> estimate = dm.estimate_search("demo", "folder:photos", {"macs": 1.5e6})
    >>> [step.kind for step in estimate.steps], estimate.seconds > 0
    (['weight steps', 'gate steps', 'trial steps'], True)

    The arguments are those of `search`.
    """
    from dmask_mobile.search.estimate import estimate_searching
    from dmask_mobile.training.machine import Machine

    find = functools.partial(cost_model, check=False, emulated=True, precision=None)
    searcher, _ = _prepared_search(
        space,
        data,
        budgets,
        tables,
        as_tuple(costs),
        find=find,
        precision=None,
        settings=settings,
        data_options=data_options,
        machine=machine or Machine(),
        progress=progress,
    )
    return estimate_searching(searcher)


def _prepared_search(
    space: AnySpace,
    data: AnyData,
    budgets: Mapping[str, float],
    tables: AnyPaths,
    costs: tuple[CostModel, ...],
    *,
    find: Callable[..., CostModel],
    precision: Precision | None,
    settings: SearchSettings | None,
    data_options: DataOptions | None,
    machine: Machine,
    progress: Progress,
) -> tuple[Searcher, RunRecord]:
    """A search that is ready to start, and the record of its run; everything has been checked."""
    from dmask_mobile.costs.guard import custom_code
    from dmask_mobile.data.load import load_data
    from dmask_mobile.run import BudgetRecord
    from dmask_mobile.search.budgets import Budget, check_budgets
    from dmask_mobile.search.search import Searcher

    check_limits(budgets)
    given, space = space, as_space(space)
    settings = settings or default_settings(space)
    weights = imported_weights(given, space)
    models = {name: find(name, tables, costs) for name in budgets}  # before data is read, which may take a long time
    machine.wait()
    read, crop = data_options or DataOptions(), space.input.crop
    images = load_data(data, space.resolution, read, progress, crop=crop).normalized_by(space.input)
    if weights and space.classes != images.classes:
        logger.warning(
            "the data has %d classes, the given network %d: it gets a new classifier, and is no teacher",
            images.classes,
            space.classes,
        )
        settings = settings.model_copy(update={"teacher": "none"})
    space = space.with_classes(images.classes)
    held = []
    for name, limit in budgets.items():
        model = models[name]
        with custom_code(name, "on") if model in costs else nullcontext():
            cost = model.on(space)
            held.append(Budget(cost, in_units(limit, cost)))
    check_budgets(held)
    custom = {cost.name for cost in costs}
    record = new_record(images, data_options or DataOptions()).model_copy(
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
    return Searcher(space, images, held, settings, machine, weights), record


def default_settings(space: SearchSpace, method: SearchMethod | None = None) -> SearchSettings:
    """The settings of a search.

    >>> dm.default_settings(dm.load_space("demo")).epochs
    8

    Args:
        space: the space.
        method: None for ``sensitivity`` where the space has the weights of a given network, ``single_path`` elsewhere.
    """
    from dmask_mobile.search.settings import SearchSettings

    method = method or ("single_path" if space.weights is None else "sensitivity")
    if method == "sensitivity":
        return SearchSettings(method=method, epochs=2, warmup=0, trials=0)
    if space.weights is None:
        return SearchSettings(method=method)
    gentle = {"warmup": 0.5, "weight_learning_rate": 0.02, "trials": 0, "teacher": "original"}
    return SearchSettings.model_validate({"method": method, **gentle})


def in_units(limit: float, cost: SpaceCost) -> float:
    """A limit in the cost's unit.

    Raises:
        DmaskError: when it is more than what the widest child costs.
    """
    if not isinstance(limit, Times):
        return limit
    if limit > 1:
        raise DmaskError(
            f"budget {cost.name}={limit:g}x is more than the widest network of '{cost.space.name}' takes",
            "give a share of it, for example 0.5x",
        )
    return limit * cost.cost(cost.space.largest())


def _check_free(folder: RunFolder, restart: bool) -> None:
    """Checks that a search may write into a folder.

    Raises:
        DmaskError: if a search has finished there, it contains a network that was not found by a search, or it is the
            folder of a sweep.
    """
    check_not_sweep(folder)
    elsewhere = "choose another run folder with -o"
    if folder.search_result.exists() and not restart:
        raise DmaskError(
            f"'{folder.path}' already contains a finished search", f"start again with --restart, or {elsewhere}"
        )
    searched = folder.search_checkpoint.exists() or folder.search_result.exists()
    if folder.child_path.exists() and not searched:
        raise DmaskError(f"'{folder.path}' contains a network that was not found by a search", elsewhere)


def _remove_search(folder: RunFolder) -> None:
    """Removes the files of an earlier search. Trained weights and exports stay until they are made again."""
    from dmask_mobile.training.checkpoint import remove_checkpoints

    # The result is removed first: without it the search counts as unfinished, even if this function is interrupted.
    for path in (folder.search_result, folder.child_path, folder.metrics_path, folder.original_path):
        path.unlink(missing_ok=True)
    remove_checkpoints(folder.search_checkpoint)
    shutil.rmtree(folder.trials_path, ignore_errors=True)
    shutil.rmtree(folder.tensorboard_path, ignore_errors=True)


def _original_weights(given: AnySpace, record: RunRecord) -> bytes | None:
    """The file with the weights of the given network, if that has the classes of the data: it may teach the child."""
    space = as_space(given)
    if isinstance(given, SearchSpace) or space.weights is None or record.space is None:
        return None
    return (as_path(given).parent / space.weights.file).read_bytes() if space.classes == record.space.classes else None


def _begin(folder: RunFolder, record: RunRecord, tables: AnyPaths, original: bytes | None) -> None:
    """Writes the record of a new search, and copies its tables and the weights that it starts from."""
    copies = {
        name: table.read_bytes() for name, table in named_tables(tables).items()
    }  # the tables may be in this folder
    if folder.record_path.exists():  # from a start without a checkpoint, or a search that starts again
        shutil.rmtree(folder.tables_path, ignore_errors=True)
    folder.tables_path.mkdir(parents=True, exist_ok=True)
    record.write(folder.record_path)
    if original is not None:
        folder.original_path.write_bytes(original)
    for name, content in copies.items():
        (folder.tables_path / f"{name}.jsonl").write_bytes(content)
