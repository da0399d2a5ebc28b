"""The file of the card: it is overwritten only while nobody has edited it."""

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
    """Writes a card and returns its path: ``README.md``, or ``README.generated.md`` if a person has edited the former.

    The last line contains a digest of the other lines. A file with a missing or different digest was edited.

    Raises:
        DmaskError: if a person has edited both.
    """
    card, generated = folder / CARD_NAME, folder / GENERATED_NAME
    path = next((path for path in (card, generated) if _is_free(path) or is_ours(path)), None)
    if path is None:
        raise DmaskError(
            f"both '{card}' and '{generated}' were edited by hand and are kept", "rename one of them to get a new card"
        )
    write_atomically(path, f"{text}<!-- written by dmask-mobile; sha256 of the rest: {_digest(text)} -->\n")
    if path == card and is_ours(generated):
        generated.unlink()
    return path


def _is_free(path: Path) -> bool:
    return not path.exists() and not path.is_symlink()


def is_ours(path: Path) -> bool:
    """Whether the file is a card that was written by this module and not edited since."""
    text = _read(path)
    seal = SEAL.search(text)
    return seal is not None and _digest(text[: seal.start()]) == seal[1]


def license_in(folder: Path) -> str:
    """The licence in the metadata of the folder's card, which may have been edited; empty if there is none."""
    metadata = METADATA.match(_read(folder / CARD_NAME))
    try:
        found = parse_yaml(metadata[1]) if metadata else None
        said = found if isinstance(found, dict) else {}
        license_name = said.get("license_name") or said.get("license")
        return check_line(license_name) if isinstance(license_name, str) else ""
    except ValueError:  # a person may have made a mistake in it
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> str:
    """The text of a file with ``\n`` as line ends; empty if there is no readable file."""
    try:
        return read_text(path, MAX_CARD_BYTES).replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError, DmaskError):
        return ""
