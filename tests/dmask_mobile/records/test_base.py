"""Files that are written in one step, and temporary files of killed processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import (
    SECONDS_UNTIL_STALE,
    remove_stale_temporaries,
    temporary_affixes,
    temporary_beside,
    write_atomically,
)
from dmask_mobile.records.space import SearchSpace

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from dmask_mobile.records.base import temporary_affixes, temporary_beside

path = Path(sys.argv[1])
prefix, suffix = temporary_affixes(path)
(path.parent / f"{prefix}x{suffix}").mkdir()
(path.parent / f"{prefix}x{suffix}" / "part").touch()
with temporary_beside(path) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "out [1]" / "model.onnx"
    write_atomically(path, "whole")
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path], check=False)
    assert len(list(path.parent.iterdir())) == 3
    remove_stale_temporaries(path.parent)
    assert [found.name for found in path.parent.iterdir()] == ["model.onnx"]


def test_temporary_files_of_a_running_process_stay(tmp_path: Path) -> None:
    with temporary_beside(tmp_path / "table.jsonl") as temporary:
        remove_stale_temporaries(tmp_path)
        assert temporary.exists()
    assert [found.name for found in tmp_path.iterdir()] == ["table.jsonl"]


@pytest.mark.parametrize("name", [".notes.tmp", ".model.onnx.abcd", "model.onnx.0123abcd-999999999.x.tmp", ".lock"])
def test_files_with_other_names_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    remove_stale_temporaries(tmp_path)
    assert (tmp_path / name).exists()


def test_those_of_another_host_stay_for_a_day(tmp_path: Path) -> None:
    prefix, suffix = temporary_affixes(tmp_path / "a.json")
    host = prefix.removeprefix(".a.json.")[:8]
    other = tmp_path / f"{prefix}x{suffix}".replace(host, "00000000")
    other.touch()
    remove_stale_temporaries(tmp_path)
    assert other.exists()
    long_ago = time.time() - SECONDS_UNTIL_STALE - 1
    os.utime(other, (long_ago, long_ago))
    remove_stale_temporaries(tmp_path)
    assert not other.exists()


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    remove_stale_temporaries(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_yaml_that_would_take_long_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("a: " + "b" * 2**19)
    with pytest.raises(DmaskError, match=r"space\.yaml' has 524,291 bytes; at most 524,288 are allowed"):
        SearchSpace.read(path)
