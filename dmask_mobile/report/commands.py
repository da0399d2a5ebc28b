"""The command lines that reproduce a run, made from its record."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.recipe import RECIPES, load_recipe
from dmask_mobile.records.space import SearchSpace, load_space, shipped_spaces
from dmask_mobile.report.records import Command, TableView
from dmask_mobile.run import RunFolder, RunRecord, SearchResultRecord

# Settings that are options of a command, and their default values.
SEARCH_OPTIONS: dict[str, object] = {
    "method": "single_path", "loss": "budget", "resolution_mode": "sampled", "expectation": "exact", "epochs": 8,
    "batch_size": 64, "warmup": 0.75, "weight_learning_rate": 0.1, "evaluations": 100, "trials": 8,
    "trial_epochs": None, "teacher": "none", "gate_learning_rate": 0.05, "seed": 0,
}  # fmt: skip
FROM_WEIGHTS: dict[str, object] = {"warmup": 0.5, "weight_learning_rate": 0.02, "trials": 0, "teacher": "original"}
SENSITIVITY: dict[str, object] = {"epochs": 2, "warmup": 0.0, "trials": 0}
"""Default values from trained weights where they differ: of the methods that train a supernet, and of the default."""
SAMPLES = 24  # of a search that trains a supernet and makes no trials
TRAIN_OPTIONS: dict[str, object] = {"init": "scratch", "seed": 0}
RECIPE_OPTIONS = ("epochs", "batch_size", "learning_rate", "qat")  # fields of a recipe that have their own option


def commands_of(
    folder: RunFolder,
    record: RunRecord,
    artifacts: Sequence[Artifact],
    tables: Sequence[TableView],
    verified: bool,
    result: SearchResultRecord | None,
) -> tuple[Command, ...]:
    """The commands of the finished steps of a run, in order.

    Args:
        folder: the run.
        record: its ``run.json``.
        artifacts: its exports.
        tables: the latency tables of its search.
        verified: whether it has a verification.
        result: the result of its search, if that has finished.
    """
    run = str(folder.path)
    found: list[Command] = []
    if record.space is not None:
        found += _import(record.space)
        space = _space_name(record.space)
        found += (_profile(space or _space_file(record.space), table) for table in tables)
        found.append(search_command(folder, record, result))
    else:
        found.append(Command(line=_line("dmask", "export", "child.json", "-o", run), note="the network is child.json"))
    if record.train_settings is not None:
        data = [] if record.space is not None or record.data is None else ["--data", record.data]
        found.append(Command(line=_line("dmask", "train", run, *data, *_train_options(record.train_settings))))
    if folder.test_path.exists():
        found.append(Command(line=_line("dmask", "test", run)))
    found += _exports(run, artifacts)
    if verified:
        found.append(Command(line=_line("dmask", "verify", run)))
    return tuple(found)


def _line(*words: str) -> str:
    return shlex.join(words)


def _space_name(space: SearchSpace) -> str | None:
    """The name of a shipped space; None for a custom space."""
    if space.name not in shipped_spaces():
        return None
    return space.name if load_space(space.name).with_classes(space.classes) == space else None


def _space_file(space: SearchSpace) -> str:
    """The file of a custom space: beside the trained weights, if it has any."""
    return "space.json" if space.weights is None else f"{PurePath(space.weights.file).stem}.yaml"


def _import(space: SearchSpace) -> Iterator[Command]:
    """The command that made a space from a trained network; none for other spaces."""
    if space.weights is not None and space.origin:
        line = _line("dmask", "space", "from", space.origin, "--weights", "WEIGHTS", "-o", _space_file(space))
        yield Command(
            line=line,
            note=f"WEIGHTS: those of the network; the SHA-256 of {space.weights.file} is {space.weights.sha256};"
            " 'space' in run.json shows what was edited afterwards",
        )


def _profile(space: str, table: TableView) -> Command:
    options = {"precision": "fp32", "delegate": "cpu", "threads": 1}
    given = {name: getattr(table, name) for name in options}
    runtime = table.runtime.partition(" ")[0]
    changed = [*(["--runtime", runtime] if runtime != "onnxruntime" else []), *_options(given, options)]
    note = f"on {table.device}, {table.runtime}; the run contains a copy of the table, digest {table.digest}"
    return Command(line=_line("dmask", "profile", space, *changed, "-o", f"{table.name}.jsonl"), note=note)


def search_command(folder: RunFolder, record: RunRecord, result: SearchResultRecord | None) -> Command:
    """The command that starts or continues the search of a run.

    Args:
        folder: the run, which was made by a search.
        record: its ``run.json``.
        result: its result; None for a search that has not finished, whose ranking is not known yet.
    """
    assert record.space is not None
    space = _space_name(record.space)
    words = ["dmask", "search", space or _space_file(record.space)]
    if record.data is not None:
        words += ["--data", record.data]
    for budget in record.budgets:
        words += ["--budget", f"{budget.cost}={budget.limit!r}{'ms' if budget.unit == 'ms' else ''}"]
    for path in folder.tables().values():
        words += ["--table", str(path)]
    if record.precision is not None:
        words += ["--precision", record.precision]
    settings = record.search_settings or {}
    if settings:  # older runs do not name the method, when there was only one, or what did not exist
        settings = {"method": "dmasking", "trials": 0, "teacher": "none", **settings}
    method = settings.get("method")
    ranks = method == "dmasking" or (method == "single_path" and not settings["trials"])
    if result is not None and len(result.candidates) != (SAMPLES if ranks else 0):
        words += ["--samples", str(max(1, len(result.candidates)))]
    if result is not None and result.rank_format is not None:
        words += ["--rank-precision", f"{result.rank_precision}:{result.rank_format}"]
    words += _options(settings, _search_defaults(record.space, method))
    notes = [] if space or record.space.weights else ["space.json is 'space' in run.json"]
    notes += ["--cost gives the class of the custom cost"] if any(budget.custom for budget in record.budgets) else []
    return Command(line=_line(*words, "-o", str(folder.path)), note="; ".join(notes))


def _search_defaults(space: SearchSpace, method: str | None) -> Mapping[str, object]:
    """The default values of a search's options."""
    if space.weights is None:
        return SEARCH_OPTIONS
    return {**SEARCH_OPTIONS, **(SENSITIVITY if method == "sensitivity" else FROM_WEIGHTS), "method": "sensitivity"}


def _train_options(settings: Mapping[str, Any]) -> list[str]:
    """The most similar shipped recipe and the settings that differ from it; settings missing in the run are ignored."""
    fields = _flat({name: value for name, value in settings.items() if name not in TRAIN_OPTIONS})

    def changes(recipe: str) -> dict[str, Any]:
        known = _flat(load_recipe(recipe).model_dump(mode="json"))
        return {name: value for name, value in fields.items() if name not in known or known[name] != value}

    recipe = min(RECIPES, key=lambda name: len(changes(name)))
    words = [] if recipe == RECIPES[0] else ["--recipe", recipe]
    for name, value in changes(recipe).items():
        if name in RECIPE_OPTIONS:
            words += [f"--{name.replace('_', '-')}", str(value)]
        else:
            words += ["--set", f"{name}={json.dumps(value)}"]
    return [*words, *_options(settings, TRAIN_OPTIONS)]


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of groups by dotted names: ``augmentation.mixup``."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _options(settings: Mapping[str, Any], defaults: Mapping[str, object]) -> list[str]:
    """The options whose values differ from the defaults of the command."""

    def words() -> Iterator[str]:
        for name, default in defaults.items():
            value = settings.get(name, default)
            if value != default and isinstance(value, str | int | float):
                yield from (f"--{name.replace('_', '-')}", str(value))

    return list(words())


def _exports(run: str, artifacts: Sequence[Artifact]) -> Iterator[Command]:
    """One command for each precision."""
    by_precision: dict[str, list[str]] = {}
    for artifact in artifacts:
        by_precision.setdefault(artifact.precision, []).append(artifact.model_format)
    for precision, formats in by_precision.items():
        words = ["dmask", "export", run, "--format", ",".join(formats)]
        yield Command(line=_line(*words, *([] if precision == "fp32" else ["--precision", precision])))
