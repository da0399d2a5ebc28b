"""Budgets as users write them."""

from __future__ import annotations

import pytest

from dmask_mobile.cli.budgets import parse_budget, parse_budgets
from dmask_mobile.errors import DmaskError


@pytest.mark.parametrize(
    ("text", "name", "limit"),
    [
        ("latency=0.12ms", "latency", 0.12),
        ("latency@pixel 6=1e1 ms", "latency@pixel 6", 10.0),
        ("macs=1.5M", "macs", 1.5e6),
        ("macs=15e5", "macs", 1.5e6),
        ("params=60K", "params", 60_000.0),
        ("macs=.3G", "macs", 3e8),
        ("weight_bytes=250K", "weight_bytes", 250_000.0),
        ("weight_bytes=2KiB", "weight_bytes", 2048.0),
        ("peak_activation_bytes=1MiB", "peak_activation_bytes", 1048576.0),
        ("memory=40MiB", "memory", 41943040.0),
        ("energy@pixel=3mJ", "energy@pixel", 3.0),
        ("depth=9", "depth", 9.0),
    ],
)
def test_budget(text: str, name: str, limit: float) -> None:
    found, value = parse_budget(text)
    assert found == name
    assert value == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency=0.12", "budget 'latency=0.12' has no unit; give it in ms: latency=0.12ms"),
        ("latency@a=3", "has no unit; give it in ms: latency@a=3ms"),
        ("latency=120us", "unknown unit 'us'; the units of latency are ms"),
        ("energy=3", "budget 'energy=3' has no unit; give it in mJ, J: energy=3mJ"),
        ("latency=0.1s", "unknown unit 's'; the units of latency are ms"),
        ("latency=1K", "unknown unit 'K'; the units of latency are ms"),
        ("macs=3ms", "unknown unit 'ms'; the units of macs are K, M, G"),
        ("macs=3m", "unknown unit 'm'; the units of macs are K, M, G"),
        ("macs=3KiB", "unknown unit 'KiB'; the units of macs are K, M, G"),
        ("weight_bytes=3MB", "unknown unit 'MB'; the units of weight_bytes are K, M, G, KiB, MiB"),
    ],
)
def test_units(text: str, message: str) -> None:
    with pytest.raises(DmaskError) as refused:
        parse_budget(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["latency", "latency=", "=3ms", "macs=nan", "macs=inf", "macs=-inf", "macs=-1M", "macs=0", "latency=0ms",
     "latency=NaNms", "macs=infinity", "macs=1e999", "macs=M", "macs=1_0", "macs=٣", "macs=1,5M", "macs=--1"],
)  # fmt: skip
def test_what_is_no_positive_value(text: str) -> None:
    with pytest.raises(DmaskError, match="a budget is NAME=VALUE with a positive value, got '"):
        parse_budget(text)


def test_two_budgets_of_one_name() -> None:
    with pytest.raises(DmaskError, match="two budgets for 'macs'; give only the smaller one"):
        parse_budgets(["macs=1M", "params=9", "macs=2M"])
    assert parse_budgets(["macs=1M", "params=9"]) == {"macs": 1e6, "params": 9.0}
