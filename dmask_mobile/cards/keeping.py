"""The card's file: written again while nobody has edited it, and never over an edited one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import parse_yaml, read_text
from dmask_mobile.records.base import write_atomically
from dmask_mobile.records.names import check_line

CARD_NAME = "README.md"
GENERATED_NAME = "README.generated.md"
MAX_CARD_BYTES = 4 * 2**20
SEAL = re.compile(r"<!-- written by dmask-mobile; sha256 of the rest: ([0-9a-f]{64}) -->\n\Z")
METADATA = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def keep_card(folder: Path, text: str) -> Path:
    """Where a card was written: ``README.md``, or ``README.generated.md`` where a person has edited the former.

    The last line holds a digest of the others: a file without it, or with another one, is not ours any more.
    """
    card, generated = folder / CARD_NAME, folder / GENERATED_NAME
    is_free = not card.exists() and not card.is_symlink()
    path = card if is_free or is_ours(card) else generated
    write_atomically(path, f"{text}<!-- written by dmask-mobile; sha256 of the rest: {_digest(text)} -->\n")
    if path == card and is_ours(generated):
        generated.unlink()
    return path


def is_ours(path: Path) -> bool:
    """Whether the file is a card that was written here and not edited since."""
    text = _read(path)
    seal = SEAL.search(text)
    return seal is not None and _digest(text[: seal.start()]) == seal[1]


def license_in(folder: Path) -> str:
    """The licence in the metadata of the folder's card, also of an edited one; empty if there is none."""
    metadata = METADATA.match(_read(folder / CARD_NAME))
    try:
        found = parse_yaml(metadata[1]) if metadata else None
        said = found if isinstance(found, dict) else {}
        license_name = said.get("license_name") or said.get("license")
        return check_line(license_name) if isinstance(license_name, str) else ""
    except ValueError:  # of somebody who edits it
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str:
    """The text of a file, with plain line ends; empty where there is none that can be read."""
    try:
        return read_text(path, MAX_CARD_BYTES).replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError, DmaskError):
        return ""
