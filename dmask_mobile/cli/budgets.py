"""Parses budgets in the form that users write: a name, a number and a unit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.quantities import TABLE_UNITS, Times

COUNT_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
BYTE_UNITS = COUNT_UNITS | {"KiB": 1024.0, "MiB": 1024.0**2}
UNITS = {"ms": {"ms": 1.0}, "mJ": {"mJ": 1.0, "J": 1e3}, "bytes": BYTE_UNITS}
TIMES = "x"
NUMBER_AND_UNIT = re.compile(r"([-+0-9.eE]*[0-9.]|[-+]?(?:nan|inf|infinity))\s*([^\W\d_]*)", re.IGNORECASE)


def parse_budgets(texts: Iterable[str]) -> dict[str, float]:
    """The budgets by name.

    Raises:
        DmaskError: as `parse_budget`, and for a name that is given twice.
    """
    budgets: dict[str, float] = {}
    for text in texts:
        name, limit = parse_budget(text)
        if name in budgets:
            raise DmaskError(f"two budgets for '{shown(name)}'", "give only the smaller one")
        budgets[name] = limit
    return budgets


def parse_budget_values(texts: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """The values of each budget of a sweep, from texts ``NAME=VALUE,VALUE,...``.

    Raises:
        DmaskError: as `parse_budget`, and for a name that is given twice.

    >>> parse_budget_values(["latency=4ms,6ms", "macs=2M"])
    {'latency': (4.0, 6.0), 'macs': (2000000.0,)}
    """
    budgets: dict[str, tuple[float, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in budgets:
            raise DmaskError(f"'{shown(name)}' is given twice", f"give all its values at once: {shown(name)}=A,B,C")
        budgets[name] = tuple(parse_budget(f"{name}={value}")[1] for value in values.split(","))
    return budgets


def parse_budget(text: str) -> tuple[str, float]:
    """``NAME=VALUE`` with a unit: ms for latency; mJ and J for energy; none, K, M or G for counts and bytes; KiB and
    MiB for bytes; x for a multiple of what the space's widest child costs.

    Raises:
        DmaskError: for any other text.

    >>> parse_budget("macs=1.5M")
    ('macs', 1500000.0)
    >>> parse_budget("latency=0.5x")
    ('latency', Times(0.5))
    """
    name, _, value = text.partition("=")
    parts = NUMBER_AND_UNIT.fullmatch(value.strip())
    number = _number(parts[1]) if parts else math.nan
    if not name or parts is None or not 0 < number < math.inf:
        raise DmaskError(
            f"a budget is NAME=VALUE with a positive value, got '{shown(text)}'", "for example latency=0.08ms"
        )
    if parts[2] == TIMES:
        return name, Times(number)
    units = _units_of(name)
    if parts[2] not in units:
        known = ", ".join(filter(None, units))
        if not parts[2]:
            example = f"{shown(name)}={parts[1]}{next(iter(units))}"
            raise DmaskError(f"budget '{shown(text)}' has no unit", f"give it in {known}: {example}")
        raise DmaskError(
            f"budget '{shown(text)}': unknown unit '{shown(parts[2])}'", f"the units of {shown(name)} are {known}"
        )
    return name, number * units[parts[2]]


def _units_of(name: str) -> dict[str, float]:
    quantity = name.partition("@")[0]
    if quantity in TABLE_UNITS:
        return UNITS[TABLE_UNITS[quantity]]
    return BYTE_UNITS if name.endswith("_bytes") else COUNT_UNITS


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
