from __future__ import annotations

import pytest

from dmask_mobile.ranks import all_processes, is_main_process, local_processes


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (True, 1, 1)),
        ({"RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (True, 8, 4)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, (False, 8, 4)),
        ({"WORLD_SIZE": "many", "LOCAL_WORLD_SIZE": "0"}, (True, 1, 1)),
    ],
)
def test_what_a_launcher_says(
    environment: dict[str, str], expected: tuple[bool, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (is_main_process(), all_processes(), local_processes()) == expected
