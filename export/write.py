"""Writes a child in one format and says what was written."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from dmask_mobile.records.artifact import Artifact, Preprocessing, hash_path, size_of_path
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable
from export.formats import format_named, metadata_of


def export_child(
    child: ChildSpec,
    network: nn.Module,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...],
    format_name: str,
    folder: Path,
) -> Artifact:
    """Writes ``model.<suffix>`` and its `Artifact` record into ``folder``; returns the record.

    Raises:
        DmaskError: for an unknown format or one whose package is not installed.
    """
    found = format_named(format_name)
    path = folder / f"model{found.suffix}"
    metadata = metadata_of(json.dumps(child.to_dict()), child.digest(), class_names)
    model = Deployable(network, preprocessing.mean, preprocessing.std)
    found.write(model, child.input_shape, path, metadata)
    artifact = Artifact(
        model_format=format_name,
        child_digest=child.digest(),
        path=path.name,
        sha256=hash_path(path),
        size_bytes=size_of_path(path),
        input_shape=child.input_shape,
        preprocessing=preprocessing,
        class_names=class_names,
    )
    artifact.write(artifact_record_path(folder, format_name))
    return artifact


def artifact_record_path(folder: Path, format_name: str) -> Path:
    """Where the record of an export lies."""
    return folder / f"{format_name}.artifact.json"
