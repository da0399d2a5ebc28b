"""The command line offers the same settings as the library."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

import pytest

from dmask_mobile import api
from dmask_mobile.cli import app, deploy_commands, table_commands
from dmask_mobile.records import setting_names
from dmask_mobile.records.artifact import PIXEL_RANGE, UNIT_RANGE, Precision
from dmask_mobile.records.base import Record
from dmask_mobile.records.space import load_space
from dmask_mobile.records.space_options import ImportedWeights
from dmask_mobile.report import commands
from dmask_mobile.search import result


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (app.search, api.SearchSettings()),
        (table_commands.profile, api.ProfileSettings()),
        (app.verify, api.VerifySettings()),
    ],
)
def test_defaults_are_those_of_the_library(command: Callable[..., None], settings: Any) -> None:
    defaults = {name: option.default for name, option in inspect.signature(command).parameters.items()}
    fields = dict(settings) if isinstance(settings, Record) else settings._asdict()
    shared = {name for name in defaults.keys() & fields.keys() if defaults[name] is not None}
    assert len(shared) >= 2
    assert {name: defaults[name] for name in shared} == {name: fields[name] for name in shared}


def test_the_report_leaves_out_what_a_search_does_by_itself() -> None:
    """A command in a report must contain every setting that differs from the default."""
    fields = api.SearchSettings().model_dump(mode="json")
    assert {name: fields[name] for name in commands.SEARCH_OPTIONS} == commands.SEARCH_OPTIONS
    weights = ImportedWeights(file="a.safetensors", sha256="0" * 64)
    weighted = load_space("demo").model_copy(update={"weights": weights})
    for method, expected in (("single_path", commands.FROM_WEIGHTS), ("sensitivity", commands.SENSITIVITY)):
        own = api.default_settings(weighted, method).model_dump(mode="json")  # type: ignore[arg-type]
        assert {name: own[name] for name in fields if own[name] != fields[name] and name != "method"} == expected
    assert api.default_settings(weighted).method == "sensitivity"
    defaults = [inspect.signature(function).parameters["samples"].default for function in (app.search, api.search)]
    assert defaults == [None, None]
    assert commands.SAMPLES == result.SAMPLES


def test_ranges_are_those_of_the_library() -> None:
    assert deploy_commands.RANGES == {"0..1": UNIT_RANGE, "0..255": PIXEL_RANGE}


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        (app.search, "method", setting_names.SearchMethod | None),
        (app.search, "loss", setting_names.LossName),
        (app.search, "resolution_mode", setting_names.ResolutionMode),
        (app.search, "expectation", setting_names.Expectation),
        (app.train, "init", setting_names.InitialWeights),
        (table_commands.profile, "precision", Precision),
    ],
)
def test_names_are_those_of_the_library(command: Callable[..., None], option: str, names: object) -> None:
    annotation = inspect.get_annotations(command, eval_str=True)[option]
    assert get_args(get_args(annotation)[0]) == get_args(names)
