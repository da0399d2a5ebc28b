"""Files that a user names for a result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.outputs import check_output, is_stream, write_output

MARK = "<!-- ours -->"


def check(path: Path) -> None:
    check_output(path, MARK, "ours", "take another")


@pytest.mark.parametrize("content", [None, "", f"head\n{MARK}\n"])
def test_new_empty_and_own_files_are_written_and_links_stay(content: str | None, tmp_path: Path) -> None:
    path, link = tmp_path / "a" / "file", tmp_path / "link"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
        link.symlink_to(path)
        check(link)
        write_output(link, "new")
        assert link.is_symlink()
        assert path.read_text() == "new"
        path.write_text(content)
    check(path)
    write_output(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("kind", ["foreign", "late mark", "folder", "fifo", "dangling", "file above", "current folder"])
def test_what_is_not_ours_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    message = "exists and is not ours; take another"
    match kind:
        case "foreign":
            path.write_text("mine")
        case "late mark":
            path.write_text("x" * 5000 + MARK)
        case "folder":
            path.mkdir()
            message = "is a folder"
        case "fifo":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to(tmp_path / "nothing")
        case "file above":
            path.write_text("mine")
            path, message = path / "deeper" / "file", "file' is not a folder; give another path"
        case "current folder":
            path, message = Path("."), r"'\.' is a folder"
    with pytest.raises(DmaskError, match=message):
        check(path)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(DmaskError, match=r"cannot be written to; check the permissions"):
        check(tmp_path / "a" / "file")


def test_devices_are_streams_and_are_never_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    for path in (Path("/dev/null"), link):
        assert is_stream(path)
        write_output(path, "text")
    assert Path("/dev/null").is_char_device()
    assert link.is_symlink()
    with pytest.raises(OSError, match="No space left"):
        write_output(Path("/dev/full"), "text")


@pytest.mark.parametrize("name", ["/dev/stdout", "out"])
def test_the_file_of_standard_output_is_continued(name: str, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from dmask_mobile.outputs import write_output\n"
    code += "print('before'); write_output(Path(sys.argv[1]), 'text\\n'); print('after')"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code, name], stdout=out, cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_text() == "before\ntext\nafter\n"
