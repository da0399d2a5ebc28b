"""Fixtures of the tests of devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_phone import FakePhone, adb_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """A folder, and an adb server of the test's own."""
    with adb_server(tmp_path):
        yield tmp_path


@pytest.fixture
def phone(server: Path) -> Iterator[FakePhone]:
    """A phone, plugged in."""
    with FakePhone(server / "phone") as phone:
        yield phone
