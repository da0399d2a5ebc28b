"""Parses changes of a recipe in the form that users write: ``augmentation.mixup=0.2``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmask_mobile.errors import DmaskError, shown


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """The values by dotted field.

    Raises:
        DmaskError: for text that is not ``FIELD=VALUE``, or a value that is not YAML.

    >>> parse_changes(["epochs=3", "augmentation.crop=[0.5, 1]"])
    {'epochs': 3, 'augmentation.crop': [0.5, 1]}
    """
    from dmask_mobile.files import parse_yaml

    changes = {}
    for text in texts:
        field, sign, value = text.partition("=")
        if not (field.strip() and sign):
            raise DmaskError(
                f"--set must be FIELD=VALUE, got '{shown(text)}'", "for example --set augmentation.mixup=0.2"
            )
        try:
            changes[field.strip()] = parse_yaml(value)
        except ValueError as error:
            raise DmaskError(f"--set {shown(text)}: the value is not YAML: {error}", "put it in quotes") from error
    return changes
