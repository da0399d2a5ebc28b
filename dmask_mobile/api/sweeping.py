"""A sweep: one search and training for each budget and seed, and the Pareto front of the results."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dmask_mobile.api.arguments import AnyPath, AnyPaths, AnySpace, as_path, as_space, check_limits
from dmask_mobile.api.importing import weights_file
from dmask_mobile.api.searching import in_units
from dmask_mobile.cost_names import cost_model, load_cost, named_tables
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.files import locked, read_bytes
from dmask_mobile.progress import Progress, silent
from dmask_mobile.quantities import Times
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.setting_names import EngineName
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.sweep import Options, SweepDesign

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel, SpaceCost
    from dmask_mobile.records.artifact import Precision
    from dmask_mobile.records.sweep import SweepRecord

Given = Mapping[str, str | float | bool]
MAX_RUNS = 1000  # of a sweep; each takes minutes to hours
FINE_TUNING: Given = {"init": "supernet", "recipe": "finetune"}  # of trainings, if the space has weights


def sweep(
    space: AnySpace,
    data: str,
    budgets: Mapping[str, Sequence[float]],
    folder: AnyPath,
    *,
    seeds: int = 1,
    tables: AnyPaths = (),
    cost: str | None = None,
    precision: Precision | None = None,
    allow_drift: bool = False,
    emulated: bool = False,
    data_options: DataOptions | None = None,
    search_options: Given = {},  # noqa: B006 - never changed
    train_options: Given = {},  # noqa: B006
    jobs: int = 1,
    engine: EngineName = "local",
    progress: Progress = silent,
) -> SweepRecord:
    """Searches and trains every combination of ``budgets`` with every seed; returns the points and their Pareto front.

    Each run has its own run folder below ``folder/runs``, made by the commands ``dmask search`` and ``dmask train`` in
    separate processes. If this is called again with the same settings, it continues where it stopped. A failed run is
    tried once more, and then listed in ``failed`` of the record.

    Args:
        space: the space, the name of a shipped space, or a file; its number of classes becomes that of the data. With
            the weights of a given network, every search starts from them, and every training fine-tunes the child
            (``init=supernet``, ``recipe=finetune``), unless ``train_options`` say otherwise.
        data: the text for the data, see `dmask_mobile.data.registry.open_source`; it cannot be an object, because other
            processes read it.
        budgets: the names of costs and the limits of each, in ms, macs, params or bytes, or as `Times` the cost of the
            space's widest child.
        folder: the sweep's folder.
        seeds: the number of seeds; they are 0, 1, 2 and so on. A sweep has at most 1,000 runs.
        tables: the latency tables that latency budgets need.
        cost: ``module:Class`` of a custom cost that a budget names.
        precision: the precision of the later export.
        allow_drift: sweep even if the device has drifted since its table was made, or is not available.
        emulated: sweep even if a table was measured on an emulator, whose times are meaningless.
        data_options: memory, workers and mirroring.
        search_options: further options of ``dmask search`` by name: ``{"epochs": 16, "samples": 4}``.
        train_options: the same for ``dmask train``.
        jobs: the number of runs at the same time.
        engine: ``local``, or ``ray`` for Ray tasks.
        progress: is called after each run.

    Raises:
        DmaskError: for bad input, for a budget that cannot be reached, or for settings that differ from those with
            which the sweep in this folder was started (naming the first difference).
        StoppedError: after SIGTERM or Ctrl-C; everything is saved first.
    """
    from dmask_mobile.sweep.design import SweepFolder, planned_runs
    from dmask_mobile.sweep.engine import ENGINES
    from dmask_mobile.sweep.job import is_searched
    from dmask_mobile.sweep.sweep import conduct

    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if type(value) is not int or value < 1:
            raise DmaskError(f"{name} must be an integer of at least 1, got {shown(repr(value))}")
    num_runs = seeds * math.prod(map(len, budgets.values()))
    if num_runs > MAX_RUNS:
        raise DmaskError(
            f"a sweep has at most {MAX_RUNS:,} runs, got {num_runs:,}: every combination of budgets with every seed",
            "give fewer seeds or budgets",
        )
    if engine not in ENGINES:
        raise DmaskError(f"no engine '{shown(engine)}'", f"choose one of {', '.join(ENGINES)}")
    reading = data_options or DataOptions()
    given, space = space, as_space(space)
    weights = weights_file(given, space)
    if weights is not None:
        train_options = {**FINE_TUNING, **train_options}
    design = _design(space, data, budgets, seeds, tables, cost, precision, reading, search_options, train_options)
    costs = [load_cost(cost)] if cost else []
    find = functools.partial(cost_model, tables=tables, costs=costs, emulated=emulated, precision=precision)
    design, units = _in_reach(design, budgets, {name: find(name) for name in budgets}, costs)
    place = SweepFolder(as_path(folder).absolute())  # Ray's workers may have another working folder
    place.path.mkdir(parents=True, exist_ok=True)
    with locked(place.path, "dmask sweep"):
        place.begin(design, named_tables(tables), space, weights)
        if not allow_drift and not all(is_searched(place.run_path(run)) for run in planned_runs(design)):
            for name in budgets:
                find(name, check=True)
        return conduct(design, place, units, reading=reading, num_at_once=jobs, engine=engine, progress=progress)


def _design(
    space: SearchSpace,
    data: str,
    budgets: Mapping[str, Sequence[float]],
    seeds: int,
    tables: AnyPaths,
    cost: str | None,
    precision: Precision | None,
    reading: DataOptions,
    search_options: Given,
    train_options: Given,
) -> SweepDesign:
    """The design of a sweep with these settings and with the data's classes and digest; no image is decoded."""
    from dmask_mobile.data.load import check_splits
    from dmask_mobile.data.registry import absolute_spec, open_source, splits_of
    from dmask_mobile.data.source import digest_of

    for name, limits in budgets.items():
        for limit in limits:
            check_limits({name: limit})
    source, spec = open_source(data), absolute_spec(data)
    if spec is None:
        raise DmaskError("a sweep needs text for its data, got an object", "give module:Class")
    splits = splits_of(source)
    check_splits(data, source.class_names, splits)
    try:
        return SweepDesign(
            space=space.with_classes(len(source.class_names)),
            data=spec,
            data_digest=digest_of(source.class_names, splits),
            budgets={name: tuple(map(float, limits)) for name, limits in budgets.items()},
            seeds=tuple(range(seeds)),
            tables={name: _digest_of_table(path) for name, path in named_tables(tables).items()},
            cost=cost,
            precision=precision,
            flip=reading.flip,
            skip_bad=reading.skip_bad,
            search_options=_options("search", search_options),
            train_options=_options("train", train_options),
        )
    except ValidationError as error:
        raise DmaskError(f"a sweep's settings: {describe_validation_error(error)}") from error


def _options(command: str, given: Given) -> Options:
    """Options of a command by their names on the command line.

    Raises:
        DmaskError: for an option that the sweep sets itself.
    """
    from dmask_mobile.sweep.design import TAKEN_OPTIONS

    found: Options = {}
    for name, value in given.items():
        option = name.replace("_", "-")
        if option in TAKEN_OPTIONS:
            raise DmaskError(
                f"the sweep sets --{option} of 'dmask {command}' itself",
                "leave it out, or set it as an argument of the sweep",
            )
        found[option] = value if isinstance(value, bool) else str(value)
    return found


def _digest_of_table(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except FileNotFoundError:
        raise DmaskError(f"no file '{path}'", "give a latency table made with 'dmask profile'") from None


def _in_reach(
    design: SweepDesign,
    budgets: Mapping[str, Sequence[float]],
    models: Mapping[str, CostModel],
    custom: Sequence[CostModel],
) -> tuple[SweepDesign, dict[str, str]]:
    """The design with all limits in units of their costs, and these units.

    Raises:
        DmaskError: for a budget that no child of the space can meet, or that every child meets, and for a share that is
            the same limit as another.
    """
    from dmask_mobile.costs.guard import custom_code
    from dmask_mobile.search.budgets import Budget, check_budgets

    limits, units = {}, {}
    for name, model in models.items():
        with custom_code(name, "on") if model in custom else nullcontext():
            cost = model.on(design.space)
            limits[name] = tuple(_in_units(limit, cost) for limit in budgets[name])
        check_budgets([Budget(cost, limit) for limit in limits[name]])
        units[name] = cost.unit
    try:
        return SweepDesign.model_validate({**design.model_dump(), "budgets": limits}), units
    except ValidationError as error:
        raise DmaskError(f"a sweep's settings: {describe_validation_error(error)}") from error


def _in_units(limit: float, cost: SpaceCost) -> float:
    """A limit in the cost's unit; that of a share has six digits, because it becomes a part of a folder's name."""
    return float(f"{in_units(limit, cost):.6g}") if isinstance(limit, Times) else float(limit)
