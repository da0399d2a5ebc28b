"""What the logs of the runtimes' benchmark programs have in common."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.artifact import Precision

END = r"[ \t\r]*\n"  # a line that was cut off may end in the middle of a number
NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
MAX_LINE = 4000  # characters; no program writes a line of interest that is so long, and searching one takes long
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SOFTWARE_GPUS = re.compile(r"llvmpipe|lavapipe|swiftshader|softpipe|software rasterizer|Microsoft Basic Render", re.I)
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


class Timing(NamedTuple):
    """The content of a log about one run of a benchmark program; None: unknown.

    ``ms``: of one inference; ``deviation_ms``: standard deviation; ``figure``: what ``ms`` is, in words; ``runs``: how
    many were timed; ``delegate``: what the model ran on, by the names of our runtimes where they have one.
    """

    ms: float
    deviation_ms: float | None = None
    figure: str = "average"
    runs: int | None = None
    threads: int | None = None
    delegate: str | None = None
    precision: Precision | None = None


class UnfitLogError(DmaskError):
    """A log that is not of one good run on what was asked for; quotes the line that says so."""

    def __init__(self, problem: str, line: str, fix: str = "measure again") -> None:
        super().__init__(f"{problem}: '{shown(line.strip())}'", fix)


def log_text(content: bytes) -> str:
    """The text of a log, which a PowerShell may have written, without colours and lines of any length."""
    encoding = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "utf-8")
    lines = content.decode(encoding, errors="replace").splitlines(keepends=True)
    return COLOURS.sub("", "".join(line for line in lines if len(line) <= MAX_LINE))


def whole_lines(text: str) -> list[str]:
    """The lines that end, which a line that was cut off does not."""
    return [line.rstrip("\r") for line in text.split("\n")[:-1]]


def number(pattern: str, text: str) -> float | None:
    """The number in the last line that ends in ``pattern``."""
    found: list[str] = re.findall(rf"{pattern}{END}", text)
    return float(found[-1]) if found else None


def whole_number(pattern: str, text: str) -> int | None:
    """The positive number in the first match of ``pattern``: programs write 0 or -1 for what they choose themselves."""
    found = re.search(pattern, text)
    return int(found[1]) if found and int(found[1]) > 0 else None


def first_line(pattern: str, lines: Iterable[str]) -> str | None:
    """The first line with ``pattern``."""
    return next((line for line in lines if re.search(pattern, line)), None)


def check_one_run(patterns: Sequence[str], text: str) -> None:
    """Checks that a line which each run of a program prints once appears once.

    Raises:
        UnfitLogError: quotes the second one.
    """
    for pattern in patterns:
        found = [line for line in whole_lines(text) if re.search(pattern, line)]
        if len(found) > 1:
            raise UnfitLogError(
                f"the log holds {len(found)} runs, the second with", found[1], "give the log of one run"
            )


def check_real_gpu(lines: Iterable[str]) -> None:
    """Checks that no GPU is made by software on the CPU.

    Raises:
        UnfitLogError: quotes the line that names it.
    """
    for line in lines:
        if SOFTWARE_GPUS.search(line):
            raise UnfitLogError("the GPU is software on the CPU", line, "measure on a device with a GPU")
