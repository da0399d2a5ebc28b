"""Options that several commands share, and the parser of core numbers."""

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
Full = Annotated[bool, typer.Option("--full", help="Show every check, not only the important ones.")]
Run = Annotated[Path, typer.Argument(help="A run folder.")]
Restart = Annotated[
    bool, typer.Option("--restart", help="Start again: discard what an earlier start of this command left in the run.")
]
Data = Annotated[
    str,
    typer.Option(
        help="folder:DIR, torchvision:NAME:DIR, hf:DIR, wds:PATTERN, fashion-mnist[:DIR], glyphs[:FONTS] or a custom"
        " module:Class."
    ),
]
Flip = Annotated[
    bool | None,
    typer.Option("--flip/--no-flip", help="Whether training mirrors images. Default: the data decides (not for text)."),
]
SkipBad = Annotated[
    bool | None,
    typer.Option("--skip-bad/--no-skip-bad", help="Leave out images that cannot be decoded, and count them."),
]
Memory = Annotated[
    float | None,
    typer.Option(min=0, help="GiB of decoded images kept in memory, 2 by default; others are decoded when needed."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that decode images. Default: one for each core, at most 4, if that is faster."),
]
MachinePrecision = Annotated[
    MixedPrecision | None,
    typer.Option("--mixed-precision", help="Number format of forward passes: no, bf16 or fp16. Default: no."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Run two steps of each kind, print the estimated time and memory, and write nothing."
    ),
]
Previous = Annotated[bool, typer.Option("--previous", help="Continue from the checkpoint before the last.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a field of the recipe, with a YAML value: augmentation.mixup=0.2; may be repeated."
    ),
]
OptionalData = Annotated[str | None, typer.Option(help="The data, if it is not that of the run.")]
Tables = Annotated[
    list[Path] | None, typer.Option("--table", help="A latency table made with 'dmask profile'; may be repeated.")
]
AllowDrift = Annotated[
    bool,
    typer.Option(
        "--allow-drift", help="Continue even if the device drifted by over 10% since its table was made, or is absent."
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device", help="local, ssh:HOST, adb or adb:SERIAL; repeat this for identical devices that share the work."
    ),
]
Where = Annotated[
    str | None, typer.Option("--device", help="How the table's device is reached now, if this has changed.")
]
Python = Annotated[str, typer.Option(help="The command that starts a Python with the runtime on the device.")]
Runner = Annotated[
    str,
    typer.Option(
        help="For a phone: benchmark_model, onnxruntime_perf_test, executor_runner or benchncnn, built for it."
    ),
]
RunnerFlags = Annotated[
    list[str] | None, typer.Option("--runner-flag", help="Is passed to the runner; may be repeated.")
]
Cores = Annotated[
    str, typer.Option(help="The cores to use: 4-7 or 2,3. Default: the last one, on a phone the fastest.")
]
Emulated = Annotated[bool, typer.Option("--emulated", help="The device is an emulator, whose times are meaningless.")]
TakeEmulated = Annotated[
    bool, typer.Option("--emulated", help="Accept the table of an emulator, whose times are meaningless.")
]
RuntimeName = Annotated[str, typer.Option(help="onnxruntime, litert, executorch, ncnn, or coreml on a Mac.")]
TablePrecision = Annotated[Precision, typer.Option(help="The precision of the models, as in the app.")]
ChildPrecision = Annotated[
    Precision | None, typer.Option(help="The precision of the child in the app; tables must have the same.")
]
Delegate = Annotated[
    str,
    typer.Option(
        help="The backend of the runtime: cpu; with a native runner also gpu, nnapi or xnnpack; Core ML: gpu, npu"
        " or all."
    ),
]
TargetError = Annotated[
    str | None, typer.Option(help="Stop when the error on whole networks is below this, for example 3%.")
]
Budgets = Annotated[
    list[str],
    typer.Option(
        help="latency=0.08ms, memory=40MiB, energy=3mJ, macs=1.5M, params=60K, weight_bytes=250K or"
        " peak_activation_bytes=100K; may be repeated. latency@NAME is the latency in the table NAME.jsonl."
    ),
]
Cost = Annotated[str | None, typer.Option(help="A custom cost: module:Class.")]

MAX_CORE_DIGITS = 4


def parse_cores(text: str) -> tuple[int, ...]:
    """The cores in a text of numbers and ranges separated by commas; each core once, in order.

    Raises:
        DmaskError: for any other text.

    >>> parse_cores("4-6,0,5")
    (0, 4, 5, 6)
    """
    cores: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers = [word for word in (first, last or first) if word.isdecimal() and len(word) <= MAX_CORE_DIGITS]
        if len(numbers) < 2 or int(numbers[1]) < int(numbers[0]):
            raise DmaskError(f"cores must be numbers and ranges, got '{text}'", "for example 4-7 or 2,3")
        cores |= set(range(int(numbers[0]), int(numbers[1]) + 1))
    return tuple(sorted(cores))


def data_options(
    flip: bool | None, skip_bad: bool | None, memory_gib: float | None, workers: int | None
) -> DataOptions | None:
    """How data is read, from the options of a command; None if no option was given."""
    from dmask_mobile.records.data import GIB, DataOptions

    if memory_gib is not None and not math.isfinite(memory_gib):
        raise DmaskError(f"--memory must be a number of GiB, got {memory_gib}", "for example --memory 2")
    given = {"flip": flip, "skip_bad": skip_bad, "workers": workers}
    given["memory_bytes"] = None if memory_gib is None else round(memory_gib * GIB)
    said = {name: value for name, value in given.items() if value is not None}
    return DataOptions.model_validate(said) if said else None
