"""The remaining time that is shown with the progress."""

from __future__ import annotations

import pytest

from dmask_mobile.cli import progress
from dmask_mobile.cli.progress import ShownProgress


@pytest.mark.parametrize(("first", "left"), [(0, 160), (200, 160)])
def test_the_time_left_counts_what_was_done_since_the_start(
    first: int, left: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed profile starts with 200 of its 360 seconds done; these took no time in this process."""
    now = [50.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    total = first + 180
    with ShownProgress() as shown:
        shown("profile", first, total)
        now[0] += 20
        shown("profile", first + 20, total)
    assert f"profile {first + 20}/{total}, about {left} s left" in capsys.readouterr().err


def test_a_stage_that_begins_again_is_timed_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ShownProgress() as shown:
        for seconds_a_step in (100, 10):  # the second epoch is faster
            for step in range(1, 4):
                now[0] += seconds_a_step
                shown("epoch", step, 10)
    assert "epoch 3/10, about 70 s left" in capsys.readouterr().err.splitlines()
