"""The content of a model card, collected from the records of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from dmask_mobile.quantities import TABLE_UNITS
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.verification import BUDGET_SUFFIX, Check, Verification
from dmask_mobile.run import RunFolder, RunRecord, SearchResultRecord

SHOWN_QUANTITIES = ("accuracy", "top-1", *TABLE_UNITS, "size", "macs", "params")
"""First words of the lines of a verification that a card shows, in addition to the lines of budgets."""


@dataclass(frozen=True)
class CardFacts:
    """The facts about a run that its card shows; results of other weights than the run's are None.

    ``accuracy``: of the test split if it was measured, otherwise of the validation images.
    """

    record: RunRecord
    child: ChildSpec
    result: SearchResultRecord | None
    val: AccuracyRecord | None
    test: AccuracyRecord | None
    artifacts: tuple[Artifact, ...]
    verification: Verification | None

    @property
    def accuracy(self) -> AccuracyRecord | None:
        return self.test or self.val

    @property
    def data_name(self) -> str:
        """The name of the data without its folder."""
        return name_of_data(self.record.data) if self.record.data else ""

    def settings(self, given: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
        """Settings by name; nested names are joined by dots, and of paths only the last part is kept."""
        for name, value in (given or {}).items():
            if isinstance(value, Mapping):
                yield from ((f"{name}.{inner}", text) for inner, text in self.settings(value))
            else:
                yield name, without_folders(str(value))

    def verified_lines(self) -> tuple[Check, ...]:
        """The lines of the verification that a card shows."""
        checks = self.verification.checks if self.verification else ()
        return tuple(
            check
            for check in checks
            if check.quantity.split()[0].partition("@")[0] in SHOWN_QUANTITIES or check.quantity.endswith(BUDGET_SUFFIX)
        )


def facts_of(folder: RunFolder) -> CardFacts:
    """The facts in the records of a run folder.

    Raises:
        DmaskError: for a folder that is not a run or has no child, a damaged record, or damaged weights.
    """
    record = folder.record()
    folder.check_weights()
    artifacts = folder.artifacts()
    found = Verification.read(folder.verification_path) if folder.verification_path.exists() else None
    return CardFacts(
        record=record,
        child=folder.child(),
        result=folder.result() if folder.search_result.exists() else None,
        val=_of_weights(folder.val_path, record),
        test=_of_weights(folder.test_path, record),
        artifacts=tuple(artifact for artifact in artifacts if artifact.weights_digest == record.weights_sha256),
        verification=found if found and found.weights_sha256 == record.weights_sha256 is not None else None,
    )


def _of_weights(path: Path, record: RunRecord) -> AccuracyRecord | None:
    """The accuracy in ``path``, if it was measured with the run's weights on the run's data."""
    if not path.exists():
        return None
    found = AccuracyRecord.read(path)
    own = (record.weights_sha256, record.data_digest)
    return found if (found.weights_sha256, found.data_digest) == own else None


def name_of_data(spec: str) -> str:
    """The name of data: the last folder of a path, the name of a data set, or the class of a custom source.

    >>> name_of_data("folder:/home/ann/flowers"), name_of_data("torchvision:CIFAR10:/data"), name_of_data("glyphs")
    ('flowers', 'CIFAR10', 'glyphs')
    """
    source, _, argument = spec.partition(":")
    match source:
        case "torchvision":
            return argument.partition(":")[0]
        case "glyphs" | "fashion-mnist":
            return source
        case "folder" | "hf" | "wds":
            return without_folders(argument) or source
    return spec


def without_folders(text: str) -> str:
    """The last part of an absolute path; other text as it is."""
    if PurePosixPath(text).is_absolute():
        return PurePosixPath(text).name
    return PureWindowsPath(text).name if PureWindowsPath(text).is_absolute() else text
