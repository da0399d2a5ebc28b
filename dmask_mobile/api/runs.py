"""A run, step by step: search, train, export, verify; and all of them in one demo."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.api.tables import profile
from dmask_mobile.cost_names import cost_model, latency_names, named_tables, our_package
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.space import SearchSpace, load_space

if TYPE_CHECKING:
    from dmask_mobile.costs.model import CostModel
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.artifact import Artifact
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.records.verification import Check, Verification
    from dmask_mobile.run import RunFolder, RunRecord, SearchResultRecord
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.data import ImageData
    from dmask_mobile.training.train import TrainSettings
    from export.verify import LatencyPromise

DEMO_SEARCH_EPOCHS, DEMO_TRAIN_EPOCHS = 16, 12
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def search(
    space: SearchSpace,
    data: str,
    budgets: Mapping[str, float],
    run: Path,
    *,
    tables: Sequence[Path] = (),
    costs: Sequence[CostModel] = (),
    samples: int = 1,
    allow_drift: bool = False,
    settings: SearchSettings | None = None,
    progress: Progress = silent,
) -> SearchResultRecord:
    """Searches ``space`` and writes ``child.json`` into the run folder; goes on with an unfinished search there.

    Args:
        space: the space; its classes become the data's.
        data: see `dmask_mobile.training.data.load_data`.
        budgets: cost names (see `cost_model`) and the most of each, in ms, macs, params, bytes.
        run: the run folder.
        tables: the latency tables that latency budgets need.
        costs: cost models of your own that the budget may name.
        samples: more than 1 draws so many children within the budgets and takes the most accurate one.
        allow_drift: search although the device has become more than 10% slower or faster than its table says.
        settings: length and rates of the search.
        progress: told after each epoch.

    Raises:
        DmaskError: for bad input, and for a budget out of reach before anything is trained.
    """
    from dmask_mobile.run import BudgetRecord, RunFolder
    from dmask_mobile.search.budgets import Budget, check_budgets
    from dmask_mobile.search.result import choose_child
    from dmask_mobile.search.search import Searcher
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.data import load_data

    if not budgets:
        raise DmaskError("a search needs a budget", "give --budget NAME=VALUE, for example latency=8ms")
    settings = settings or SearchSettings()
    images = load_data(data, space.resolution)
    space = space.with_classes(images.classes)
    held = [
        Budget(cost_model(name, tables, costs, check=not allow_drift).on(space), limit)
        for name, limit in budgets.items()
    ]
    check_budgets(held)
    folder = RunFolder(run)
    if folder.search_result.exists():
        raise DmaskError(f"'{run}' already holds a finished search", "choose another run folder with -o")
    record = _new_record(images).model_copy(
        update={
            "data": data,
            "space": space,
            "budgets": tuple(BudgetRecord(cost=b.cost.name, limit=b.limit, unit=b.cost.unit) for b in held),
            "search_settings": settings.model_dump(mode="json"),
        }
    )
    if not folder.search_checkpoint.exists():  # else this goes on with a search, whose record must stay as it is
        shutil.rmtree(folder.tables_path, ignore_errors=True)  # of a start that left no checkpoint
        folder.tables_path.mkdir(parents=True)
        record.write(folder.record_path)
        for name, table in named_tables(tables).items():
            shutil.copyfile(table, folder.tables_path / f"{name}.jsonl")
    searcher = Searcher(space, images, held, settings)
    found = searcher.run(folder.search_checkpoint, progress)
    result = choose_child(searcher, found, samples, progress)
    space.child(result.choice, f"{space.name}-{run.name}").write(folder.child_path)
    result.write(folder.search_result)
    return result


def train(
    run: Path, *, data: str | None = None, settings: TrainSettings | None = None, progress: Progress = silent
) -> float:
    """Trains the run's child; returns its top-1 accuracy. Goes on after an interruption.

    Args:
        run: the run folder.
        data: other data than the run's own.
        settings: the recipe, and whether to start from random weights or from the child's slice of the supernet.
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
    folder = RunFolder(run)
    record, child = folder.record(), folder.child()
    images = _data_of(record, child, data)
    network = build(child, torch.Generator().manual_seed(settings.seed))
    if settings.init == "supernet":
        network.load_state_dict(_slice_of_supernet(folder).state_dict())
    accuracy = train_child(network, images, settings, folder.train_checkpoint, progress)
    save_weights(folder.weights_path, network, child.digest())
    update = {
        **_new_record(images).model_dump(include={"preprocessing", "class_names"}),
        "data": data or record.data,
        "train_settings": settings.model_dump(mode="json"),
        "accuracy": accuracy,
    }
    type(record).model_validate({**record.model_dump(), **update}).write(folder.record_path)
    return accuracy


def _slice_of_supernet(folder: RunFolder) -> ChildNetwork:
    """The child with its slice of the supernet's weights."""
    from dmask_mobile.run import SearchResultRecord
    from dmask_mobile.supernet.cut import cut_child
    from dmask_mobile.supernet.supernet import MaskedSupernet
    from dmask_mobile.training.checkpoint import load_checkpoint

    space = folder.record().space
    if space is None or not folder.search_result.exists():
        raise DmaskError(f"'{folder.path}' holds no finished search to inherit from", "train with --init scratch")
    supernet = MaskedSupernet(space)
    supernet.load_state_dict(load_checkpoint(folder.search_checkpoint)["supernet"])
    return cut_child(supernet, SearchResultRecord.read(folder.search_result).choice)


def start_run(child: ChildSpec, run: Path) -> None:
    """Makes a run folder for a network that no search of ours found, with random weights (seed 0).

    Raises:
        DmaskError: when the folder holds a run of another child.
    """
    from dmask_mobile.nets.build import build
    from dmask_mobile.records.artifact import Preprocessing
    from dmask_mobile.run import RunFolder, RunRecord, installed_versions, now
    from dmask_mobile.training.checkpoint import save_weights

    folder = RunFolder(run)
    if folder.child_path.exists():
        if folder.child().digest() != child.digest():
            raise DmaskError(f"'{run}' holds another child", "choose another folder with -o")
        return
    channels = child.in_channels
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.25,) * channels)
    RunRecord(
        created=now(),
        versions=installed_versions(),
        preprocessing=Preprocessing(mean=mean, std=std),
        class_names=tuple(str(index) for index in range(child.classes)),
    ).write(folder.record_path)
    save_weights(folder.weights_path, build(child), child.digest())
    child.write(folder.child_path)


def export(run: Path, formats: Sequence[str], progress: Progress = silent) -> tuple[Artifact, ...]:
    """Exports the run's child in each of ``formats``; the records lie beside the files in ``exports/``.

    Raises:
        DmaskError: before anything is written, for an unknown format or one whose package is not installed; for a
            child without weights.
    """
    our_package("export")
    from dmask_mobile.nets.build import build
    from dmask_mobile.run import RunFolder
    from dmask_mobile.training.checkpoint import load_weights
    from export.formats import format_named
    from export.write import export_child

    for name in formats:
        format_named(name)
    folder = RunFolder(run)
    record, child = folder.record(), folder.child()
    if not folder.weights_path.exists():
        raise DmaskError(f"'{run}' has no trained weights", "train the child first: dmask train RUN")
    network = build(child)
    load_weights(folder.weights_path, network, child.digest())
    artifacts = []
    for number, name in enumerate(formats, start=1):
        artifacts.append(export_child(child, network, record.preprocessing, record.class_names, name, folder.exports))
        progress("export", number, len(formats), name)
    return tuple(artifacts)


def verify(
    run: Path,
    *,
    data: str | None = None,
    tables: Sequence[Path] = (),
    images: int = 1000,
    allow_drift: bool = False,
    progress: Progress = silent,
) -> Verification:
    """Holds every artifact of the run against what was promised; writes ``verification.json``.

    Args:
        run: the run folder.
        data: the images to verify on, if not those that the child was trained on.
        tables: the latency tables, if not those that the search used. Without one no latency is promised.
        images: at most so many validation images.
        allow_drift: judge latencies although the device has drifted by more than 10% since its table was made.
        progress: told after each artifact.

    Raises:
        DmaskError: when there is nothing to verify or an artifact is missing.
    """
    our_package("export")
    from dmask_mobile.nets.build import build
    from dmask_mobile.records.artifact import Artifact
    from dmask_mobile.records.verification import Verification
    from dmask_mobile.run import RunFolder, now
    from dmask_mobile.training.checkpoint import load_weights
    from dmask_mobile.training.data import seen
    from export.deployable import Deployable
    from export.verify import Reference, verify_artifact

    folder = RunFolder(run)
    record, child = folder.record(), folder.child()
    paths = sorted(folder.exports.glob("*.artifact.json"))
    if not paths:
        raise DmaskError(f"'{run}' holds no exported artifact", "export one: dmask export RUN --format onnx,coreml")
    validation = _data_of(record, child, data, check_classes=record.accuracy is not None)
    network = build(child)
    load_weights(folder.weights_path, network, child.digest())
    reference = Reference(
        child,
        Deployable(network, record.preprocessing.mean, record.preprocessing.std),
        seen(validation.val.images[:images], validation),
        validation.val.labels[:images],
    )
    promises = _latency_promises(record, named_tables(tables) or folder.tables(), progress)
    checks: list[Check] = []
    for number, path in enumerate(paths, start=1):
        artifact = Artifact.read(path)
        checks.extend(verify_artifact(artifact, folder.exports, reference, promises, allow_drift))
        progress("verify", number, len(paths), artifact.model_format)
    verification = Verification(child_digest=child.digest(), created=now(), checks=tuple(checks))
    verification.write(folder.verification_path)
    return verification


def _latency_promises(record: RunRecord, tables: Mapping[str, Path], progress: Progress) -> tuple[LatencyPromise, ...]:
    """What each table says of the child's latency, and the budget that the search held it to."""
    if not tables:
        return ()
    our_package("latency_tables")
    from export.verify import LatencyPromise
    from latency_tables.probe import TableProbe
    from latency_tables.table import LatencyTable

    budgets = {budget.cost: budget.limit for budget in record.budgets}
    promises = []
    for name, cost in latency_names(tables).items():
        limit = budgets.get(cost, budgets.get(f"latency@{name}"))  # one table may be named in its budget as well
        promises.append(LatencyPromise(cost, TableProbe(LatencyTable.read(tables[name]), progress), limit))
    return tuple(promises)


def demo(folder: Path, *, seed: int = 0, progress: Progress = silent) -> tuple[Path, Verification]:
    """The whole chain on the space ``demo`` and rendered characters, in a new run folder below ``folder``.

    The latency budget lies in the middle of what the space can reach on this machine.

    Returns:
        The run folder and the verification of the ONNX and Core ML exports.
    """
    from dmask_mobile.run import new_run_path
    from dmask_mobile.search.settings import SearchSettings
    from dmask_mobile.training.train import TrainSettings

    space = load_space("demo")
    run = new_run_path(folder, "demo")
    table = run / "table.jsonl"
    profile(space, table, progress=progress)
    low, high = cost_model("latency", [table]).on(space).reachable()
    settings = SearchSettings(epochs=DEMO_SEARCH_EPOCHS, seed=seed)
    budgets = {"latency": (low + high) / 2}
    search(space, "glyphs", budgets, run, tables=[table], allow_drift=True, settings=settings, progress=progress)
    train(run, settings=TrainSettings(epochs=DEMO_TRAIN_EPOCHS, seed=seed), progress=progress)
    export(run, ["onnx", "coreml"], progress)
    return run, verify(run, allow_drift=True, progress=progress)


def _new_record(images: ImageData) -> RunRecord:
    from dmask_mobile.records.artifact import Preprocessing
    from dmask_mobile.run import RunRecord, installed_versions, now

    return RunRecord(
        created=now(),
        versions=installed_versions(),
        preprocessing=Preprocessing(mean=images.mean, std=images.std, source_resolution=images.train.images.shape[-1]),
        class_names=images.class_names,
    )


def _data_of(record: RunRecord, child: ChildSpec, data: str | None, check_classes: bool = True) -> ImageData:
    from dmask_mobile.training.data import load_data

    source = data or record.data
    if source is None:
        raise DmaskError("this run names no data", "give --data glyphs, fashion-mnist or a folder")
    resolution = record.space.resolution if record.space else child.resolution
    images = load_data(source, resolution).at(child.resolution)
    if check_classes and images.classes != child.classes:
        raise DmaskError(
            f"data '{source}' has {images.classes} classes, the child {child.classes}", "give the data of the search"
        )
    return images
