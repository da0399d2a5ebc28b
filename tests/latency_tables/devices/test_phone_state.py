"""What phones say of their temperature and battery. The texts are from public reports."""

from __future__ import annotations

import pytest

from latency_tables.devices.phone_state import battery, thermal

SKIN = "Temperature{mValue=31.2, mType=3, mName=skin, mStatus=0}"
GPU = "Temperature{mValue=36.0, mType=1, mName=GPU, mStatus=0}"
READY = "IsStatusOverride: false\nThermal Status: 0\nCached temperatures:\n\t{}\nHAL Ready: true\n"


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        (READY.format(SKIN), 0, ""),
        (READY.format(SKIN).replace("\n", "\r\n"), 0, ""),
        (READY.format(SKIN).replace("Status: 0", "Status: 2"), 2, ""),
        ("Thermal Status: 0\n", 0, ""),  # it does not list its sensors
        ("Can't find service: thermalservice\n", None, "no thermal service"),
        ("", None, "no thermal service"),
        (READY.format(SKIN).replace("true", "false"), None, "not ready"),
        (READY.format("").replace("true", "false"), None, "not ready"),
        (READY.format(SKIN).replace("Override: false", "Override: true"), None, "overridden"),
        (READY.format(GPU), None, "no skin sensor"),  # what has none says 0 for ever
        (READY.format(""), None, "no skin sensor"),
        (READY.format(GPU).replace("Status: 0", "Status: 3"), 3, ""),
    ],
)
def test_a_thermal_status_that_is_not_known_is_not_cool(text: str, status: int | None, why: str) -> None:
    found, reason = thermal(text)
    assert found == status
    assert why in reason
    assert bool(why) == bool(reason)


@pytest.mark.parametrize(
    ("text", "percent", "celsius"),
    [
        ("  present: true\n  level: 81\n  scale: 100\n  temperature: 287\n", 81.0, 28.7),
        ("  level: 100\n  scale: 200\n  temperature: -52\n", 50.0, -5.2),
        ("  present: false\n  level: 0\n  scale: 0\n  temperature: 0\n", None, None),  # a board without one
        ("  level: 0\n  scale: 0\n  temperature: 0\n", None, 0.0),
        ("  level: 50\n  scale: 100\n  temperature: -2147483648\n", 50.0, None),
        ("  level: 50\n  temperature: 2147483647\n", 50.0, None),
        ("  (UPDATES STOPPED -- use 'reset' to restart)\n  level: 50\n  scale: 100\n  temperature: 250\n", None, None),
        ("Can't find service: battery\n", None, None),
    ],
)
def test_battery(text: str, percent: float | None, celsius: float | None) -> None:
    assert battery(f"Current Battery Service state:\n{text}") == (percent, celsius)
