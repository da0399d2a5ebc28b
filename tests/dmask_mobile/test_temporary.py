"""Temporary folders are removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dmask_mobile import temporary
from dmask_mobile.temporary import temporary_folder


def test_a_folder_of_a_killed_process_is_removed_from_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    temporary._remove_stale.cache_clear()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with temporary_folder() as mine:
        stale = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{ended.pid}."))
        (stale / "inside").mkdir(parents=True)
        (tmp_path / "dmask-of somebody").mkdir()
        temporary._remove_stale.cache_clear()
        with temporary_folder() as other:
            assert {path.name for path in tmp_path.iterdir()} == {mine.name, other.name, "dmask-of somebody"}
    assert [path.name for path in tmp_path.iterdir()] == ["dmask-of somebody"]
