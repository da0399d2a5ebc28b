"""Whether what a runtime's models are made with is installed here, and what installs it."""

from __future__ import annotations

from importlib import metadata

from export.formats.registry import FORMATS
from latency_tables.runtimes.runtime import Runtime


def installed(distribution: str) -> bool:
    """Whether this Python has a distribution."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def missing_converters(runtime: Runtime) -> list[str]:
    """The distributions that are missing for converting models."""
    return [name for name in runtime.converters if not installed(name)]


def install_command(runtime: Runtime) -> str:
    """What installs a runtime and its converter on this machine."""
    extra = FORMATS[runtime.model_format].extra
    return f"pip install 'dmask-mobile[{extra}]'" if extra else f"pip install {' '.join(runtime.converters)}"
