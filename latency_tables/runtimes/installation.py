"""Checks whether the converters of a runtime are installed here, and names the command that installs them."""

from __future__ import annotations

from importlib import metadata

from export.formats.registry import FORMATS
from latency_tables.runtimes.runtime import Runtime


def installed(distribution: str) -> bool:
    """Whether a distribution is installed in this Python."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def missing_converters(runtime: Runtime) -> list[str]:
    """The distributions for converting models that are not installed."""
    return [name for name in runtime.converters if not installed(name)]


def install_command(runtime: Runtime) -> str:
    """The command that installs a runtime and its converter on this machine."""
    extra = FORMATS[runtime.model_format].extra
    return f"pip install 'dmask-mobile[{extra}]'" if extra else f"pip install {' '.join(runtime.converters)}"
