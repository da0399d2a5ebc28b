"""What several commands share: options, and cores as users write them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.setting_names import MixedPrecision, Precision

if TYPE_CHECKING:
    from dmask_mobile.records.data import DataOptions

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Full = Annotated[bool, typer.Option("--full", help="Show every check, not only what matters.")]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
Restart = Annotated[
    bool, typer.Option("--restart", help="Begin anew: forget what an earlier start of this command left in the run.")
]
Data = Annotated[
    str,
    typer.Option(
        help="folder:DIR, torchvision:NAME:DIR, hf:DIR, wds:PATTERN, fashion-mnist[:DIR], glyphs[:FONTS] or your own"
        " module:Class."
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Whether training mirrors images. Default: as the data says; not for text."),
]
SkipBad = Annotated[
    bool | None, typer.Option("--skip-bad/--no-skip-bad", help="Leave out images that do not decode, and count them.")
]
Memory = Annotated[
    float | None,
    typer.Option(min=0, help="GiB of decoded images kept in memory, 2 by default; the rest is decoded when needed."),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that decode images. Default: one a core, at most 4, where it pays.")
]
MachinePrecision = Annotated[
    MixedPrecision | None,
    typer.Option("--mixed-precision", help="Number format of forward passes: no, bf16 or fp16. Default: no."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Make two steps of each kind, print estimated time and memory, write nothing.")
]
Previous = Annotated[bool, typer.Option("--previous", help="Go on from the checkpoint before the last.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Another value for a field of the recipe, as YAML: augmentation.mixup=0.2; may be repeated."
    ),
]
OptionalData = Annotated[str | None, typer.Option(help="Other data than the run's own.")]
Tables = Annotated[
    list[Path] | None, typer.Option("--table", help="A latency table made with 'dmask profile'; may be repeated.")
]
AllowDrift = Annotated[
    bool,
    typer.Option(
        "--allow-drift", help="Go on although the device has drifted by more than 10% since its table, or is absent."
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device", help="local, ssh:HOST, adb or adb:SERIAL; repeat it for identical devices that share the work."
    ),
]
Where = Annotated[
    str | None, typer.Option("--device", help="How the table's device is reached now, if not as it was then.")
]
Python = Annotated[str, typer.Option(help="The command on the device that is a Python with the runtime.")]
Runner = Annotated[
    str,
    typer.Option(
        help="For a phone: benchmark_model, onnxruntime_perf_test, executor_runner or benchncnn, built for it."
    ),
]
RunnerFlags = Annotated[list[str] | None, typer.Option("--runner-flag", help="Passed on to the runner; repeatable.")]
Cores = Annotated[
    str, typer.Option(help="The cores to stay on: 4-7 or 2,3. Default: the last, on a phone the fastest.")
]
Emulated = Annotated[bool, typer.Option("--emulated", help="An emulator, whose times mean nothing.")]
TakeEmulated = Annotated[
    bool, typer.Option("--emulated", help="Take a table whose times mean nothing, as an emulator's.")
]
RuntimeName = Annotated[str, typer.Option(help="onnxruntime, litert, executorch, ncnn, or coreml on a Mac.")]
TablePrecision = Annotated[Precision, typer.Option(help="Of the models, as the app will ship them.")]
ChildPrecision = Annotated[Precision | None, typer.Option(help="What the child will ship in: tables must be of it.")]
Delegate = Annotated[
    str,
    typer.Option(
        help="What the runtime computes on: cpu; with a native runner also gpu, nnapi or xnnpack; Core ML: gpu, npu or"
        " all."
    ),
]
TargetError = Annotated[
    str | None, typer.Option(help="Stop once whole networks are predicted this well, for example 3%.")
]
Budgets = Annotated[
    list[str],
    typer.Option(
        help="latency=0.08ms, macs=1.5M, params=60K, weight_bytes=250K or peak_activation_bytes=100K; may be repeated."
        " latency@NAME is that of the table NAME.jsonl."
    ),
]
Cost = Annotated[str | None, typer.Option(help="A cost of your own: module:Class.")]

MAX_CORE_DIGITS = 4


def parse_cores(text: str) -> tuple[int, ...]:
    """Core numbers and ranges of them, separated by commas; each core once, in order.

    Raises:
        DmaskError: when it is anything else.

    >>> parse_cores("4-6,0,5")
    (0, 4, 5, 6)
    """
    cores: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers = [word for word in (first, last or first) if word.isdecimal() and len(word) <= MAX_CORE_DIGITS]
        if len(numbers) < 2 or int(numbers[1]) < int(numbers[0]):
            raise DmaskError(f"cores are numbers and ranges, got '{text}'", "for example 4-7 or 2,3")
        cores |= set(range(int(numbers[0]), int(numbers[1]) + 1))
    return tuple(sorted(cores))


def data_options(
    flip: bool | None, skip_bad: bool | None, memory_gib: float | None, workers: int | None
) -> DataOptions | None:
    """How data is read, from the options of a command; None where none was given."""
    from dmask_mobile.records.data import GIB, DataOptions

    if memory_gib is not None and not math.isfinite(memory_gib):
        raise DmaskError(f"--memory must be a number of GiB, got {memory_gib}", "for example --memory 2")
    given = {"flip": flip, "skip_bad": skip_bad, "workers": workers}
    given["memory_bytes"] = None if memory_gib is None else round(memory_gib * GIB)
    said = {name: value for name, value in given.items() if value is not None}
    return DataOptions.model_validate(said) if said else None
