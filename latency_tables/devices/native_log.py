"""Common functions for logs of the runtimes' benchmark programs."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.artifact import Precision

END = r"[ \t\r]*\n"  # a truncated line may end in the middle of a number
NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
MAX_LINE = 4000  # characters; relevant lines are shorter, and searching longer ones takes long
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SOFTWARE_GPUS = re.compile(r"llvmpipe|lavapipe|swiftshader|softpipe|software rasterizer|Microsoft Basic Render", re.I)
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


class Timing(NamedTuple):
    """The content of a log about one run of a benchmark program; None: unknown.

    ``ms``: the time of one inference. ``deviation_ms``: the standard deviation. ``figure``: the meaning of ``ms`` as
    text. ``runs``: the number of timed runs. ``delegate``: the backend, with our name for it if there is one.
    """

    ms: float
    deviation_ms: float | None = None
    figure: str = "average"
    runs: int | None = None
    threads: int | None = None
    delegate: str | None = None
    precision: Precision | None = None


class UnfitLogError(DmaskError):
    """A log that does not show one successful run on the requested backend; it quotes the line that shows this."""

    def __init__(self, problem: str, line: str, fix: str = "measure again") -> None:
        super().__init__(f"{problem}: '{shown(line.strip())}'", fix)


def log_text(content: bytes) -> str:
    """The text of a log without colours and overlong lines; the log may have been written by PowerShell."""
    encoding = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "utf-8")
    lines = content.decode(encoding, errors="replace").splitlines(keepends=True)
    return COLOURS.sub("", "".join(line for line in lines if len(line) <= MAX_LINE))


def whole_lines(text: str) -> list[str]:
    """The complete lines, without a truncated last line."""
    return [line.rstrip("\r") for line in text.split("\n")[:-1]]


def number(pattern: str, text: str) -> float | None:
    """The number in the last line that ends in ``pattern``."""
    found: list[str] = re.findall(rf"{pattern}{END}", text)
    return float(found[-1]) if found else None


def whole_number(pattern: str, text: str) -> int | None:
    """The positive number in the first match of ``pattern``; programs print 0 or -1 for their own choice."""
    found = re.search(pattern, text)
    return int(found[1]) if found and int(found[1]) > 0 else None


def first_line(pattern: str, lines: Iterable[str]) -> str | None:
    """The first line that matches ``pattern``."""
    return next((line for line in lines if re.search(pattern, line)), None)


def check_one_run(patterns: Sequence[str], text: str) -> None:
    """Checks that a line that every run prints once appears only once.

    Raises:
        UnfitLogError: quoting the second one.
    """
    for pattern in patterns:
        found = [line for line in whole_lines(text) if re.search(pattern, line)]
        if len(found) > 1:
            raise UnfitLogError(
                f"the log contains {len(found)} runs, the second with", found[1], "give the log of one run"
            )


def check_real_gpu(lines: Iterable[str]) -> None:
    """Checks that no GPU is emulated by software on the CPU.

    Raises:
        UnfitLogError: quoting the line that names it.
    """
    for line in lines:
        if SOFTWARE_GPUS.search(line):
            raise UnfitLogError("the GPU is emulated by software on the CPU", line, "measure on a device with a GPU")
