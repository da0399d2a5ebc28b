"""The base of all records: they are frozen, checked when made, and read and written as versioned files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dmask_mobile.errors import MAX_SHOWN, DmaskError, shown
from dmask_mobile.files import parse_json, parse_yaml, read_text

MAX_RECORD_BYTES = 16 * 2**20
MAX_YAML_RECORD_BYTES = 2**19  # PyYAML needs a second for each 100 KB; our largest space has 3 KB
MAX_FINDINGS = 5  # mentioned in the message about one record
TEMPORARY_NAME = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<pid>[1-9][0-9]{0,9})\..+\.tmp", re.DOTALL)
SECONDS_UNTIL_STALE = 24 * 3600.0


class Record(BaseModel):
    """A frozen record; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileRecord(Record):
    """A record with a file of its own: JSON (or YAML) whose first keys are ``format`` and ``version``.

    ``file_version`` is the version that is written; versions from ``oldest_version`` to ``file_version`` can be read.
    ``old_names``: the names of fields in older versions. Digests are computed with the old names, so that renaming a
    field changes no digest in existing files. ``added_fields``: fields that a later version added; a digest leaves them
    out at their defaults. ``max_bytes``: the largest JSON file that is read. ``indent``: the indentation of the JSON
    that is written.
    """

    file_format: ClassVar[str]
    file_version: ClassVar[int] = 1
    oldest_version: ClassVar[int | None] = None
    old_names: ClassVar[Mapping[str, str]] = {}
    added_fields: ClassVar[tuple[str, ...]] = ()
    max_bytes: ClassVar[int] = MAX_RECORD_BYTES
    indent: ClassVar[int | None] = 1

    @property
    def written_version(self) -> int:
        """The version that is written: the newest one; some records write the oldest version that can contain them."""
        return self.file_version

    def to_dict(self) -> dict[str, Any]:
        """The content of the file: format and version, then the fields."""
        return {"format": self.file_format, "version": self.written_version, **self.model_dump(mode="json")}

    def digest(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the canonical JSON."""
        content = self.to_dict()
        for name in self.added_fields:
            if getattr(self, name) == type(self).model_fields[name].default:
                del content[name]
        if self.old_names:
            content = with_names(content, self.old_names) | {"version": self.oldest_version}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def write(self, path: Path) -> None:
        """Writes the record to ``path`` in one step: a reader sees the old file or the new one."""
        write_atomically(path, json.dumps(self.to_dict(), indent=self.indent) + "\n")

    @classmethod
    def from_dict(cls, content: object, source: str) -> Self:
        """The record made from the content of a parsed file.

        Raises:
            DmaskError: for another format, an unsupported version, or content that breaks a rule of the record.
        """
        if not isinstance(content, dict):
            raise DmaskError(
                f"{source}: a {cls.file_format} file must be a mapping, but this one contains {type(content).__name__}"
            )
        fields = dict(content)
        version = fields.pop("version", None)
        oldest = cls.oldest_version or cls.file_version
        check_head(fields.pop("format", None), version, cls.file_format, range(oldest, cls.file_version + 1), source)
        if version != cls.file_version:
            fields = with_names(fields, {old: new for new, old in cls.old_names.items()})
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise DmaskError(f"{source}: {describe_validation_error(error)}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in the file ``path`` (``.json``, ``.yaml`` or ``.yml``).

        Raises:
            DmaskError: if the file is absent, cannot be parsed or breaks a rule of the record.
        """
        try:
            is_yaml = path.suffix in (".yaml", ".yml")
            text = read_text(path, MAX_YAML_RECORD_BYTES if is_yaml else cls.max_bytes)
            content = parse_yaml(text) if is_yaml else parse_json(text)
        except FileNotFoundError:
            raise DmaskError(f"no file '{path}'", f"give the path of a {cls.file_format} file") from None
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DmaskError(
                f"cannot read '{path}' as {cls.file_format}: {reason}", "restore the file or make it again"
            ) from error
        return cls.from_dict(content, f"'{path}'")


def with_names(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """``fields`` in the same order, with each key that ``names`` contains replaced by the name given there."""
    return {names.get(name, name): value for name, value in fields.items()}


def check_head(found_format: object, found_version: object, file_format: str, versions: range, source: str) -> None:
    """Checks the format and the version at the beginning of a file.

    Raises:
        DmaskError: naming the value that was found and the one that was expected.
    """
    if found_format != file_format:
        raise DmaskError(
            f"{source}: format must be '{file_format}', found {shown(repr(found_format))}", "give a file of that format"
        )
    if type(found_version) is not int or found_version not in versions:
        readable = " and ".join(map(str, versions))
        raise DmaskError(
            f"{source}: version {shown(repr(found_version))} of {file_format}, but this dmask-mobile reads version"
            f" {readable}",
            "use the dmask-mobile that wrote the file, or make the file again",
        )


def describe_validation_error(error: ValidationError) -> str:
    """One line about pydantic's findings: field, rule and value of the first ones, and how many more there are."""
    details = error.errors(include_url=False)
    told = details[:MAX_FINDINGS]
    findings = []
    for detail in told:
        field = shown(field_name(detail["loc"]))
        if detail["type"] == "extra_forbidden":
            findings.append(f"unknown key '{field}'")
        elif detail["type"] == "missing":
            findings.append(f"key '{field}' is missing")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            value = shown(repr(detail["input"]), MAX_SHOWN // len(told))
            got = "" if isinstance(detail["input"], dict) else f", got {value}"
            findings.append(f"{field}: {message}{got}" if field else message)
    if len(details) > len(told):
        findings.append(f"and {len(details) - len(told):,} more")
    return "; ".join(findings)


def field_name(location: Sequence[int | str]) -> str:
    """The name that ``dmask space show`` gives to a field: ``stage1.kernels`` for ``stages.0.kernels``, else its path.

    The form of a stage (counted or listed) is left out.

    >>> field_name(("stages", 0, "counted", "kernels", 2)), field_name(("blocks", 3, "kernel"))
    ('stage1.kernels.2', 'blocks.3.kernel')
    """
    return re.sub(
        r"\bstages\.(\d+)(\.(counted|listed))?", lambda found: f"stage{int(found[1]) + 1}", ".".join(map(str, location))
    )


def write_atomically(path: Path, text: str) -> None:
    """Writes ``text`` beside ``path``, flushes it to disk, then renames it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class temporary_beside:  # noqa: N801 - a context manager, used as a function
    """A temporary path in the folder of ``path`` that replaces ``path`` if the ``with`` block ends without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        prefix, suffix = temporary_affixes(self.path)
        self.temporary = self.path.with_name(f"{prefix}{secrets.token_hex(8)}{suffix}")
        # Unlike a file made by tempfile, this one gets the permissions that the user's umask gives to new files.
        os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return self.temporary

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None:
            self.temporary.unlink(missing_ok=True)
            return
        try:
            with self.temporary.open("rb") as file:
                os.fsync(file.fileno())
            self.temporary.replace(self.path)
        except BaseException:  # a full disk may be noticed only here
            self.temporary.unlink(missing_ok=True)
            raise


def temporary_affixes(path: Path) -> tuple[str, str]:
    """Prefix and suffix for the name of a temporary file or folder that this process will rename to ``path``.

    The name is ``.NAME.HOST-PID.RANDOM.tmp``, so that `remove_stale_temporaries` can tell which process made it.
    """
    return f".{path.name}.{_host()}-{os.getpid()}.", ".tmp"


def remove_stale_temporaries(folder: Path) -> None:
    """Removes the temporary files and folders in ``folder`` whose process has ended without removing them.

    The processes of other hosts cannot be looked up from here, so their files are removed when they are a day old.
    Nothing happens if the folder does not exist or cannot be written to.
    """
    for path in folder.glob(".*.tmp"):
        owner = TEMPORARY_NAME.fullmatch(path.name)
        if owner is None or not _is_stale(path, owner["host"], int(owner["pid"])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_stale(path: Path, host: str, pid: int) -> bool:
    if host == _host() and os.name == "posix":  # elsewhere os.kill would end the process
        return not _is_running(pid)
    try:
        return time.time() - path.lstat().st_mtime > SECONDS_UNTIL_STALE
    except OSError:
        return False


def _host() -> str:
    """Eight hexadecimal digits that identify this machine (or container) in the names of temporary files."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # the process belongs to another user
    return True
