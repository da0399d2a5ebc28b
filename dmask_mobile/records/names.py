"""Checks of names in records from untrusted files; the names end up in paths, messages, labels and source code."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from dmask_mobile.errors import shown

MAX_FILE_NAME = 255  # bytes; the limit of all common file systems
MAX_CLASS_NAME = 500  # characters
MAX_LINE = 1000  # characters of an author or a licence
SEPARATORS = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of control characters, lone surrogates and line breaks


def check_name(name: str) -> str:
    """``name``, if it is a valid name of a file or folder.

    Raises:
        ValueError: if it is empty, contains a path separator or an unprintable character, or is '.' or '..'.
    """
    if not name.isprintable() or not name or "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError("a name is printable characters without / and \\, and not '.' or '..'")
    return name


def check_line(text: str) -> str:
    """``text``, if it is one line.

    Raises:
        ValueError: if it contains control characters or line breaks.
    """
    if any(unicodedata.category(character) in SEPARATORS for character in text):
        raise ValueError("must be one line without control characters")
    return text


def check_class_names(names: Iterable[str]) -> None:
    """Checks the names of classes. Two names may be equal: ImageNet has two classes named 'crane'.

    Raises:
        ValueError: naming the first name that is empty, too long or not a single line of text.
    """
    for number, name in enumerate(names):
        try:
            check_line(name)
        except ValueError as error:
            raise ValueError(f"the name of class {number} {error}: '{shown(name)}'") from None
        if not name.strip() or len(name) > MAX_CLASS_NAME:
            raise ValueError(f"the name of class {number} must have 1 to {MAX_CLASS_NAME} characters, got {len(name)}")


def as_name(text: str, most: int) -> str:
    """The first ``most`` characters of ``text``, with each character that `check_name` refuses replaced by '-'."""
    kept = "".join(c if c.isprintable() and c not in "/\\" else "-" for c in text)[:most]
    return "-" if kept in ("", ".", "..") else kept


def _check_file_name(name: str) -> str:
    if len(check_name(name).encode()) > MAX_FILE_NAME:
        raise ValueError(f"the name of a file has at most {MAX_FILE_NAME} bytes")
    return name


def _checked_class_names(names: tuple[str, ...]) -> tuple[str, ...]:
    check_class_names(names)
    return names


def _check_short_line(text: str) -> str:
    if len(text) > MAX_LINE:
        raise ValueError(f"must have at most {MAX_LINE} characters, got {len(text):,}")
    return check_line(text)


Name = Annotated[str, AfterValidator(check_name)]
Line = Annotated[str, AfterValidator(_check_short_line)]
FileName = Annotated[str, AfterValidator(_check_file_name)]
"""The name of a file in the record's folder; never a path."""
ClassNames = Annotated[tuple[str, ...], AfterValidator(_checked_class_names)]
