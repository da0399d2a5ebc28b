"""Descriptions of a run: the accuracy of each class, and the model card."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmask_mobile.api.arguments import AnyPath, as_path
from dmask_mobile.api.run_data import locks_run
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.names import MAX_LINE, check_line
from dmask_mobile.run import RunFolder

if TYPE_CHECKING:
    from torch import nn

    from dmask_mobile.data.images import ImageData
    from dmask_mobile.records.accuracy import AccuracyRecord

logger = logging.getLogger(__name__)


class WrittenCard(NamedTuple):
    """The path of the written card, and the ``README.md`` that was kept because a person had edited it, if any."""

    path: Path
    kept: Path | None

    @property
    def note(self) -> str:
        """The same as text."""
        kept = f"; '{self.kept}' was edited by hand and is kept" if self.kept else ""
        return f"model card in '{self.path}'{kept}"


@locks_run("dmask card")
def write_card(run: AnyPath, *, license_name: str | None = None) -> WrittenCard:
    """Writes the model card of a run.

    >>> dm.write_card("runs/a", license_name="apache-2.0").path
    PosixPath('runs/a/README.md')

    Args:
        run: the run folder.
        license_name: the licence of the model: the Hub's identifier (``apache-2.0``) or another line of text. None
            keeps the licence that is already in the card.

    Raises:
        DmaskError: for a folder that is not a run, a run without a child, a damaged record, damaged weights, or an
            invalid licence name.
    """
    if license_name is not None:
        check_license(license_name)
    return _write(RunFolder(as_path(run)), license_name)


def describe_training(
    folder: RunFolder, network: nn.Module, images: ImageData, progress: Progress = silent
) -> AccuracyRecord:
    """The accuracy of newly trained weights on the validation images.

    It writes ``val.json``, its tables and pictures, and the card.

    Args:
        folder: the run; its record already contains the weights' digest.
        network: the child with these weights.
        images: the data that the network was trained on.
        progress: is called with a message about the card.
    """
    from dmask_mobile.records.accuracy import AccuracyRecord
    from dmask_mobile.training.evaluation import confusion_of

    record = folder.record()
    found = AccuracyRecord.from_confusion(
        confusion_of(network, images.val, images, images.classes).tolist(),
        split="val",
        data_digest=images.digest,
        weights_sha256=record.weights_sha256,
        class_names=images.class_names,
        num_training_images=len(images.train),
    )
    found.write(folder.val_path)
    describe_accuracy(folder, folder.val_path, found, progress)
    return found


def describe_accuracy(folder: RunFolder, path: Path, found: AccuracyRecord, progress: Progress = silent) -> None:
    """Writes tables and pictures next to the record ``path``, and the card."""
    _draw(path, found)
    renew_card(folder, progress)


def _draw(path: Path, found: AccuracyRecord) -> None:
    from dmask_mobile.cards.class_table import write_tables
    from dmask_mobile.cards.confusion_picture import write_pictures

    write_tables(found, path.parent, path.stem)
    write_pictures(found, path.parent, path.stem)


def renew_card(folder: RunFolder, progress: Progress = silent, license_name: str = "") -> None:
    """Writes the card again after a command. A problem is only reported; it does not change the command's result."""
    try:
        note = _write(folder, license_name or None).note
    except (DmaskError, OSError) as error:
        logger.warning("no model card: %s", error)
    except Exception as error:  # the command has done its work, and its result must not be lost
        logger.warning("no model card, a fault of dmask-mobile: %s: %s", type(error).__name__, shown(error))
    else:
        progress("card", 1, 1, note)


def check_license(name: str) -> None:
    """Checks the name of a licence.

    Raises:
        DmaskError: if it is empty, too long or not a single line.
    """
    try:
        is_line = bool(check_line(name).strip()) and len(name) <= MAX_LINE
    except ValueError:
        is_line = False
    if not is_line:
        raise DmaskError(
            f"a licence is a line of 1 to {MAX_LINE} characters, got '{name[:MAX_LINE]}'", "for example apache-2.0"
        )


def _write(folder: RunFolder, license_name: str | None) -> WrittenCard:
    from dmask_mobile.cards.facts import facts_of
    from dmask_mobile.cards.keeping import CARD_NAME, keep_card, license_in
    from dmask_mobile.cards.model_card import UNKNOWN_LICENSE, card_text

    said = license_in(folder.path) if license_name is None else license_name
    facts = facts_of(folder)
    of_card = folder.test_path if facts.test else folder.val_path
    if facts.accuracy and not of_card.with_name(f"{of_card.stem}_confusion.png").exists():
        _draw(of_card, facts.accuracy)  # a run of an earlier version has no pictures, but the card shows them
    path = keep_card(folder.path, card_text(facts, "" if said == UNKNOWN_LICENSE else said))
    return WrittenCard(path, None if path.name == CARD_NAME else folder.path / CARD_NAME)
