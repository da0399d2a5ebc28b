"""Standard output and error that also work if they are closed, full, or cannot show a character."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import BinaryIO, TextIO


class OutputError(BaseException):
    """Standard output cannot be written to. Not an ``Exception``, so that no library catches it as its own failure."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")
        self.is_closed = error.errno == errno.EPIPE


class _Output(io.TextIOWrapper):
    """Standard output; a failure raises `OutputError`."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputError(error) from error


class _Messages(io.TextIOWrapper):
    """Standard error; text that cannot be written is dropped, and the work continues."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Opens closed standard streams, and makes streams replace characters that their encoding does not have."""
    for number in range(3):  # a file that is opened later must not get the number of a stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _Output(_bytes_of(sys.stdout, 1), _encoding_of(sys.stdout), "replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _Messages(_bytes_of(sys.stderr, 2), _encoding_of(sys.stderr), "replace", line_buffering=True)


def _bytes_of(stream: TextIO | None, number: int) -> BinaryIO:
    """The binary file of a stream; Python has no stream object if the descriptor was closed."""
    return open(number, "wb", closefd=False) if stream is None else stream.buffer


def _encoding_of(stream: TextIO | None) -> str:
    return "utf-8" if stream is None else stream.encoding


def discard_output() -> None:
    """Discards the rest of the buffer of standard output, so that flushing it at the end of the process cannot fail."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)
