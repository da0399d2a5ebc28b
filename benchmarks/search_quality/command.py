"""Does the search find better children than chance, than scaling, and than an ungated search on the same supernet?

    python benchmarks/search_quality --form quick --data photographs=folder:DIR --work runs/search_quality

Contenders, trained alike and measured to have the same latency: the search; the widest child scaled uniformly in three
ways; random children within the budget; the best of as many of them as a search costs; the child with the most
capacity, for which nothing is trained; the search's own supernet without gates, by random draws and by regularized
evolution; the search with multiply-adds as its budget; MobileNetV3.
`search_quality/protocol.py` says how often and for how long. Every choice is made on validation images. The test split
stays closed until ``--open-test``: give it once, at the very end.

Each job is done once, and its result is kept in ``--work``: started again, the command goes on. Another version of the
search gets another ``--name``: it reuses the random children and what else does not depend on the search. Writes
``benchmarks/results/search_quality_FORM.json`` and pictures beside it, after each setting.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from record import RESULTS, keep

from dmask_mobile.clock import now
from dmask_mobile.data.registry import open_source
from dmask_mobile.errors import DmaskError
from dmask_mobile.files import locked
from dmask_mobile.records.base import write_atomically
from dmask_mobile.search.settings import SearchSettings
from search_quality.bench import Bench
from search_quality.entries import Split
from search_quality.images import test_images
from search_quality.jobs import test
from search_quality.pictures import draw
from search_quality.pool import workers
from search_quality.printed import table
from search_quality.protocol import EVERYTHING, FORMS, Protocol, Setting
from search_quality.summary import summarized
from search_quality.whole import Outcome, begin, compare, say

SOURCES = {"fashion_mnist": "fashion-mnist", "glyphs": "glyphs:/usr/share/fonts/truetype/aenigma"}
"""Where data lies that comes with Debian's packages; the rest needs ``--data``."""


def search_settings(changes: Sequence[str]) -> SearchSettings:
    """The default settings with ``FIELD=VALUE`` changed; ``control.rate=1`` names a field of a group.

    Raises:
        DmaskError: for a change that is none, or breaks a rule of the settings.
    """
    content: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise DmaskError(f"--search '{change}' is no change", "give FIELD=VALUE")
        place = content
        for group in name.split(".")[:-1]:
            place = place.setdefault(group, {})
        try:
            place[name.split(".")[-1]] = json.loads(value)
        except ValueError:
            place[name.split(".")[-1]] = value
    try:
        return SearchSettings.model_validate(content)
    except ValidationError as error:
        raise DmaskError(f"--search: {error}", f"fields are {', '.join(SearchSettings.model_fields)}") from error


def chosen_settings(protocol: Protocol, sources: dict[str, str], only: Sequence[str]) -> list[Setting]:
    """The settings to run: without those that were not asked for, or whose data is absent."""
    names = {name for setting in protocol.settings for name in (setting.name, setting.data)}
    if unknown := sorted(({*sources} - {*SOURCES} | {*only}) - names):
        raise DmaskError(f"no setting or data '{unknown[0]}' in this form", f"there are {', '.join(sorted(names))}")
    exact = {setting.name for setting in protocol.settings}
    chosen = []
    for setting in protocol.settings:
        if only and setting.name not in only and setting.data not in {*only} - exact:
            continue
        try:
            open_source(sources.get(setting.data, ""))
        except DmaskError as error:
            say(f"{setting.name} is skipped: {error}" + (f"; give --data {setting.data}=SOURCE" if error else ""))
            continue
        chosen.append(setting)
    if not chosen:
        raise DmaskError("no data to compare on", "give --data NAME=SOURCE")
    return chosen


def tested(outcome: Outcome, spec: str, pool: Executor) -> Outcome:
    """The same with the test accuracy of every training."""
    bench = outcome.bench
    pool.submit(test_images, bench.work, bench.setting, spec).result()
    entries = []
    for entry in outcome.entries:
        count = len(entry.trainings)
        results = pool.map(test, [bench] * count, [entry.network] * count, [each.seed for each in entry.trainings])
        pairs = zip(entry.trainings, results, strict=True)
        trainings = tuple(training.model_copy(update={"test": result["test"]}) for training, result in pairs)
        entries.append(entry.model_copy(update={"trainings": trainings}))
    return outcome._replace(entries=entries)


def run(arguments: argparse.Namespace, protocol: Protocol) -> Iterator[dict[str, Any]]:
    """Compares in one setting after the other; yields the results of all searches in this work folder after each."""
    search = search_settings(arguments.search)
    sources = SOURCES | dict(arguments.data)
    settings = chosen_settings(protocol, sources, arguments.only)
    if arguments.contenders:
        settings = [setting.model_copy(update={"contenders": tuple(arguments.contenders)}) for setting in settings]
    with workers(arguments.processes) as pool:
        for setting in settings:
            spent: dict[str, float] = {}
            bench = Bench(arguments.work, protocol, setting, {}, arguments.name, search)
            outcome = compare(begin(bench, sources[setting.data], pool, spent), pool, spent)
            if arguments.open_test:
                say(f"{setting.name}: opening the test split")
                outcome = tested(outcome, sources[setting.data], pool)
            yield _written(outcome, arguments)


def _written(outcome: Outcome, arguments: argparse.Namespace) -> dict[str, Any]:
    """Adds a setting to the results of its search and draws it; returns those of all searches."""
    protocol, name = outcome.bench.protocol, outcome.bench.setting.name
    variants = arguments.work / "variants" / protocol.form
    path = variants / f"{arguments.name}.json"
    before = json.loads(path.read_text())["settings"] if path.exists() else {}
    content = {"created": now(), "settings": {**before, name: summarized(outcome)}}
    write_atomically(path, json.dumps(content, indent=1))
    split: Split = "test" if arguments.open_test else "val"
    pictures = arguments.results / f"search_quality_{protocol.form}"
    draw(outcome.entries, split, f"{name}, search '{arguments.name}'", pictures / f"{name}_{arguments.name}")
    return {
        "protocol": protocol.model_dump(mode="json"),
        "variants": {path.stem: json.loads(path.read_text()) for path in sorted(variants.glob("*.json"))},
    }


def pair(text: str) -> tuple[str, str]:
    """``NAME=SOURCE``."""
    name, equals, source = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"give NAME=SOURCE, not '{text}'")
    return name, source


def main(given: Sequence[str] | None = None) -> None:
    """Compares, writes the results, prints them."""
    parser = argparse.ArgumentParser(
        "search_quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--form", choices=FORMS, default="quick")
    parser.add_argument("--data", type=pair, action="append", default=[], metavar="NAME=SOURCE")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a setting, or all of one data set")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=EVERYTHING,
        help="instead of the setting's; the search and random children always are",
    )
    parser.add_argument("--work", type=Path, default=Path("runs/search_quality"), help="give the same one to go on")
    parser.add_argument("--processes", type=int, default=2, help="jobs at once, one thread each")
    parser.add_argument("--name", default="default", help="of the version of the search that is tried")
    parser.add_argument("--search", action="append", default=[], metavar="FIELD=VALUE", help="a setting of the search")
    parser.add_argument("--open-test", action="store_true", help="test every network at the very end")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(given)
    if arguments.search and arguments.name == "default":
        parser.error("--search needs a --name of its own: 'default' is the search with its default settings")
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    name = f"search_quality_{arguments.form}"
    try:
        with locked(arguments.work, "search_quality"):
            for result in run(arguments, FORMS[arguments.form]):
                keep(name, result, False, arguments.results)
    except DmaskError as error:
        sys.exit(f"error: {error}")
    print((arguments.results / f"{name}.json").read_text() if arguments.json else table(result["variants"]))
