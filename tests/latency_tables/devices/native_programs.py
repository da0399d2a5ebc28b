"""Programs for the phone of the test suite: LiteRT behind `benchmark_model`, and scripts that fail in known ways."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from latency_tables.devices.runners import NativeRunner


def litert_program(folder: Path, form: str = "NEW") -> Path:
    """A ``benchmark_model`` that prints as new or as old ones do."""
    real = shlex.join([sys.executable, "-P", str(Path(__file__).with_name("benchmark_model.py")), form])
    return script(folder, "benchmark_model", f'exec {real} "$@"')


def script(folder: Path, name: str, text: str) -> Path:
    """A program of the shell."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def runner(path: Path, *flags: str) -> NativeRunner:
    """The program as a session takes it."""
    return NativeRunner(path.name, path, flags)
