"""The time left that is shown while something works."""

from __future__ import annotations

import pytest

from dmask_mobile.cli import progress
from dmask_mobile.cli.progress import ShownProgress


@pytest.mark.parametrize(("first", "left"), [(0, 160), (200, 160)])
def test_the_time_left_counts_what_was_done_since_the_start(
    first: int, left: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile that goes on has 200 of its 360 seconds behind it when it starts; they took it no time now."""
    now = [50.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    total = first + 180
    with ShownProgress() as shown:
        shown("profile", first, total)
        now[0] += 20
        shown("profile", first + 20, total)
    assert f"profile {first + 20}/{total}, about {left} s left" in capsys.readouterr().err
