"""The folder of a sweep, the runs of its design, and the command lines that make them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.quantities import TABLE_UNITS
from dmask_mobile.records.base import remove_stale_temporaries, temporary_beside
from dmask_mobile.records.data import GIB, DataOptions
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.sweep import Options, SweepDesign
from dmask_mobile.training.restoring import first_difference

READING_OPTIONS = ("flip", "memory", "no-flip", "no-skip-bad", "skip-bad", "workers")
WHAT_IS_SEARCHED = ("allow-drift", "budget", "cost", "data", "emulated", "precision", "seed", "table")
TAKEN_OPTIONS = frozenset({*READING_OPTIONS, *WHAT_IS_SEARCHED, "json", "output", "restart"})
"""Options of ``dmask search`` and ``dmask train`` that the sweep sets itself or replaces by its own options."""

UNSAFE = re.compile(r"[^\w@.+]")  # characters not allowed in the name of a folder


class PlannedRun(NamedTuple):
    """One run of a sweep: its name, its budgets by cost, its seed."""

    name: str
    budgets: Mapping[str, float]
    seed: int


class SweepFolder:
    """The paths of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.design_path = path / "design.json"
        self.result_path = path / "sweep.json"
        self.space_path = path / "space.json"
        self.tables_path = path / "tables"
        self.runs_path = path / "runs"
        self.pictures = (path / "front.png", path / "front.svg")

    def run_path(self, run: PlannedRun) -> Path:
        """The run folder of one run."""
        return self.runs_path / run.name

    def table_path(self, name: str) -> Path:
        """The sweep's own copy of a latency table."""
        return self.tables_path / f"{name}.jsonl"

    def begin(
        self, design: SweepDesign, tables: Mapping[str, Path], space: SearchSpace, weights: Path | None = None
    ) -> None:
        """Creates the folder of ``design``, or checks that it belongs to ``design``; copies what the runs start from.

        Args:
            design: the plan.
            tables: the latency tables by name.
            space: the space as it was given; its classes are those of its weights.
            weights: the file of its weights, if it has any.

        Raises:
            DmaskError: for a folder with other content, or a sweep with other settings, naming the first difference.
        """
        remove_stale_temporaries(self.path)
        if self.design_path.exists():
            if difference := first_difference(SweepDesign.read(self.design_path).to_dict(), design.to_dict()):
                raise DmaskError(
                    f"'{self.path}' is a sweep with other settings: {difference}",
                    "use the settings with which it was started, or choose another folder with -o",
                )
        elif others := sorted(path.name for path in self.path.iterdir() if not path.name.startswith(".")):
            raise DmaskError(f"'{self.path}' is not a sweep and contains '{others[0]}'", "choose a new folder with -o")
        else:
            design.write(self.design_path)
        space.write(self.space_path)
        self.tables_path.mkdir(exist_ok=True)
        copies = {self.table_path(name): table for name, table in tables.items()}
        if weights is not None:
            copies[self.path / weights.name] = weights
        for copy, original in copies.items():
            with temporary_beside(copy) as temporary:
                temporary.write_bytes(original.read_bytes())


def planned_runs(design: SweepDesign) -> tuple[PlannedRun, ...]:
    """All runs, in the order in which they are made: every budget with the first seed, then with the next one.

    So a whole front exists before the last seeds are done.
    """
    combinations = [
        dict(zip(design.budgets, limits, strict=True)) for limits in itertools.product(*design.budgets.values())
    ]
    return tuple(
        PlannedRun(_run_name(budgets, seed), budgets, seed) for seed in design.seeds for budgets in combinations
    )


def _run_name(budgets: Mapping[str, float], seed: int) -> str:
    """The name of a run's folder.

    >>> _run_name({"latency": 0.08, "macs": 1500000.0}, 2)
    'latency-0.08-macs-1500000-seed-2'
    """
    parts = [f"{UNSAFE.sub('_', cost)}-{_number(limit)}" for cost, limit in budgets.items()]
    return "-".join([*parts, f"seed-{seed}"])


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def search_arguments(
    design: SweepDesign, run: PlannedRun, folder: SweepFolder, reading: DataOptions
) -> tuple[str, ...]:
    """The arguments of ``dmask`` that search one run.

    The drift of devices and the use of an emulator's tables are checked only once, before the first run: while other
    runs use this machine, every device appears slow.
    """
    tables = [f"--table={folder.table_path(name)}" for name in design.tables]
    return (
        "search",
        str(folder.space_path),
        f"--data={design.data}",
        f"--output={folder.run_path(run)}",
        f"--seed={run.seed}",
        *(f"--budget={cost}={_number(limit)}{_unit(cost)}" for cost, limit in run.budgets.items()),
        *tables,
        *((f"--cost={design.cost}",) if design.cost else ()),
        *((f"--precision={design.precision}",) if design.precision else ()),
        "--allow-drift",
        "--emulated",
        *_reading_arguments(reading),
        *option_arguments(design.search_options),
    )


def train_arguments(design: SweepDesign, run: PlannedRun, folder: SweepFolder, reading: DataOptions) -> tuple[str, ...]:
    """The arguments of ``dmask`` that train the child of one run."""
    return (
        "train",
        str(folder.run_path(run)),
        f"--seed={run.seed}",
        *_reading_arguments(reading),
        *option_arguments(design.train_options),
    )


def _unit(cost: str) -> str:
    unit = TABLE_UNITS.get(cost.partition("@")[0], "")
    return "" if unit == "bytes" else unit


def _reading_arguments(reading: DataOptions) -> Iterator[str]:
    """The options for reading data that were set explicitly; all others keep the command's defaults."""
    for name, value in reading.model_dump(exclude_unset=True).items():
        if name == "memory_bytes":
            yield f"--memory={value / GIB!r}"
        elif name == "workers":
            yield from () if value is None else (f"--workers={value}",)
        elif value is not None:
            yield from option_arguments({name.replace("_", "-"): value})


def option_arguments(options: Options) -> Iterator[str]:
    """Options of a command as its arguments.

    >>> list(option_arguments({"samples": "4", "flip": False}))
    ['--samples=4', '--no-flip']
    """
    for name, value in options.items():
        match value:
            case True:
                yield f"--{name}"
            case False:
                yield f"--no-{name}"
            case _:
                yield f"--{name}={value}"
