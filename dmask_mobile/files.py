"""Reads untrusted files within limits, and locks files and folders for writing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError, shown

MAX_BYTES = 256 * 2**20  # of a file that is read as a whole; our largest table had 40 MB
MAX_YAML_BYTES = 16 * 2**20  # PyYAML takes a second for each 100 KB
MAX_YAML_NODES = 200_000  # with every alias expanded
LOCK_NAME = ".lock"  # in a folder that is being written to


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most ``max_bytes``.

    Raises:
        FileNotFoundError: if there is none.
        DmaskError: for anything that is not a regular file (reading a FIFO or a device might never end), or a larger
            file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DmaskError(f"'{path}' is not a regular file", "give the path of a file")
    if status.st_size > max_bytes:
        raise DmaskError(
            f"'{path}' has {status.st_size:,} bytes; at most {max_bytes:,} are allowed",
            "check that it is the right file",
        )
    return path.read_bytes()


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The UTF-8 text of a regular file; see `read_bytes`.

    Raises:
        FileNotFoundError: if there is none.
        UnicodeDecodeError: if it is not UTF-8.
        DmaskError: in the same cases as `read_bytes`.
    """
    return read_bytes(path, max_bytes).decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: for anything that is not JSON, a key that appears twice in one object (``json`` would silently keep
            the last one), NaN and infinity, or nesting that is too deep for Python's parser.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value of YAML text, with safe types only.

    Raises:
        ValueError: for anything that is not YAML, with line and column; a key that appears twice in one mapping;
            aliases that expand to more than `MAX_YAML_NODES` values or contain themselves.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it has {len(text):,} characters; at most {MAX_YAML_BYTES:,} of YAML are allowed")
    try:
        loader = yaml.SafeLoader(text)  # checks every character
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _num_nodes(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (AttributeError, KeyError, IndexError, TypeError, OverflowError) as error:  # caused by tags: !!timestamp abc
        raise ValueError(f"a tag does not fit its value: {error}") from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """A context that locks the file or folder ``path`` against other processes that use the same lock.

    The lock is next to a file (``.NAME.lock``) or inside a folder (``.lock``), at its real path, so that a symbolic
    link leads to the same lock. The folder must exist.

    Args:
        path: the file or folder.
        doing: the command, such as ``dmask search``, for the message to a process that is refused.

    Raises:
        DmaskError: if another process has the lock, naming that process.
    """
    place = _place_of_lock(path)
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DmaskError(
            f"another {_writer(place)} is writing to '{path}'", "wait for it, or choose another place with -o"
        ) from None
    try:
        _owner(place).write_text(
            json.dumps({"pid": os.getpid(), "doing": doing, "since": now()}),
            encoding="utf-8",
        )
        yield
    finally:
        _owner(place).unlink(missing_ok=True)
        lock.release()


def writer_of(path: Path) -> str | None:
    """A text about the process that has the lock of the file or folder ``path`` now; None if no process has it."""
    place = _place_of_lock(path)
    if not _owner(place).exists():  # then the lock is not tried: a command that begins now must get it
        return None
    try:
        with FileLock(place).acquire(timeout=0):
            return None
    except Timeout:
        return _writer(place)
    except OSError:  # a folder that this user may not write to
        return None


def _place_of_lock(path: Path) -> Path:
    real = path.resolve()
    return real / LOCK_NAME if real.is_dir() else real.with_name(f".{real.name}.lock")


def _owner(place: Path) -> Path:
    return place.with_name(f"{place.name}.owner")


def _writer(place: Path) -> str:
    """A text about the process that has the lock."""
    try:
        owner = parse_json(read_text(_owner(place), 4096))
        return f"'{owner['doing']}' (process {owner['pid']}, since {owner['since']})"
    except (OSError, ValueError, LookupError, TypeError, DmaskError):
        return "dmask command"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{shown(twice)}' appears twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number in JSON")


def _num_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values of a node, with every alias expanded; its keys are checked."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise ValueError(f"line {node.start_mark.line + 1}: an alias contains itself")
        return known[id(node)]
    known[id(node)] = 0  # not finished yet
    count = 1
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                where = f"line {key.start_mark.line + 1}, column {key.start_mark.column + 1}"
                raise ValueError(f"{where}: key '{shown(key.value)}' appears twice")
            keys.add((key.tag, str(key.value)))
        count += sum(_num_nodes(part, known) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_num_nodes(part, known) for part in node.value)
    if count > MAX_YAML_NODES:
        raise ValueError(f"its aliases expand to more than {MAX_YAML_NODES:,} values")
    known[id(node)] = count
    return count
