"""Untrusted files are read within limits; files that are written are locked by their real path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmask_mobile.errors import MAX_MESSAGE, DmaskError, shown
from dmask_mobile.files import locked, parse_json, parse_yaml, read_bytes, writer_of
from dmask_mobile.records.space import SearchSpace


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_regular_files_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(DmaskError, match="is not a regular file"):
        read_bytes(path)
    with pytest.raises(DmaskError, match="is not a regular file"):
        SearchSpace.read(path)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(DmaskError, match=r"has 1,099,511,627,776 bytes; at most 1,000 are allowed"):
        read_bytes(path, 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' appears twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
    ],
)
def test_json_that_json_would_take_or_die_of(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


LAUGHS = "- &a0 [x, x]\n" + "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3: key 'c' appears twice"),
        ("[" * 100_000, "nested too deeply"),
        ("&a [*a]", "line 1: an alias contains itself"),
        (LAUGHS, "its aliases expand to more than 200,000 values"),
        ("a: 1\nb: [1, 2\n", r"line 3, column 1: expected ',' or '\]'"),
        ("a: !!python/object/apply:os.system [x]", "line 1, column 4: could not determine a constructor"),
        ("a: \x00", "special characters are not allowed"),
        ("a" * (16 * 2**20 + 1), "at most 16,777,216 of YAML are allowed"),
    ],
)
def test_yaml_that_yaml_would_take_or_die_of(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_plain_yaml_and_its_aliases_are_read() -> None:
    assert parse_yaml("a: &x [1, 2.5, yes]\nb: *x\n") == {"a": [1, 2.5, True], "b": [1, 2.5, True]}
    assert parse_yaml("") is None


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_holds_by_every_path_and_says_who_has_it(kind: str, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    if kind == "folder":
        real.mkdir()
    link.symlink_to(real)
    code = "import sys; from pathlib import Path; from dmask_mobile.files import locked\n"
    code += "with locked(Path(sys.argv[1]), 'dmask search'): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(real)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        says = rf"another 'dmask search' \(process {other.pid}, since 20.*\) is writing to '.*link'"
        with pytest.raises(DmaskError, match=says), locked(link, "dmask train"):
            pass
        assert str(writer_of(link)).startswith(f"'dmask search' (process {other.pid}, since 20")
        other.kill()  # which removes no lock file
    assert writer_of(link) is None
    with locked(link, "dmask train"):
        pass


def test_a_message_sends_no_control_characters_and_ends() -> None:
    error = DmaskError("got 'a\x1b[31m\r\n" + "b" * 30_000_000 + "'", "do\x07")
    assert str(error).startswith("got 'a\\x1b[31m\\r\\nbbb")
    assert str(error).endswith("…; do\\x07")
    assert len(error.problem) == MAX_MESSAGE
    assert shown("é\udcff") == "é\\udcff"
