"""Formats numbers with units for people."""

from __future__ import annotations

TABLE_UNITS = {"latency": "ms", "memory": "bytes", "energy": "mJ"}
"""What tables of devices predict, with the units; budgets name it, with several tables as ``memory@TABLE``."""


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit as text for people."""
    if value is None:
        return "-"
    if unit in ("macs", "params"):
        return f"{value:,.0f}"
    if unit == "bytes":
        return f"{value / 1024:,.1f} KiB"
    if unit in ("ms", "mJ"):
        return f"{value:.4f} {unit}" if value < 1 else f"{value:.2f} {unit}"
    if unit == "share":
        return f"{value:.2%}"
    if unit == "dB":
        return f"{value:.1f} dB"
    return f"{value:.2g} {unit}" if unit else f"{value:.7g}"


def percent(share: float) -> str:
    """A share as text in percent.

    >>> percent(0.04), percent(0.003), percent(0)
    ('4%', '0.30%', '0%')
    """
    return f"{share:.2%}" if 0 < share < 0.0095 else f"{share:.0%}"


class Times(float):
    """A budget as a multiple of what a space's widest child costs.

    >>> dm.Times(0.5)
    Times(0.5)
    """

    def __repr__(self) -> str:
        return f"Times({float(self):g})"
