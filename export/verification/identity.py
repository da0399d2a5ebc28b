"""Checks whether a model's file, metadata, record and run describe the same model."""

from __future__ import annotations

from pathlib import Path

from dmask_mobile.records.artifact import Artifact, ModelDescription, size_of_path
from dmask_mobile.records.verification import Check, line_of
from export.formats.protocols import EXPECTED_NAMES, ExportedModel
from export.verification.reference import Reference

OTHER_FILE = "the file is not the one that was exported (its SHA-256 differs)"


def check_identity(
    artifact: Artifact, path: Path, model: ExportedModel, reference: Reference | str, other_file: bool
) -> Check:
    """The line with the number of contradictions between file, metadata, record and run.

    Args:
        artifact: the record.
        path: its file.
        model: the file, opened.
        reference: the run's network, or the reason why there is none.
        other_file: whether the file's SHA-256 differs from the recorded one.
    """
    metadata = model.metadata()
    inside = ModelDescription.from_metadata(metadata, artifact.path)
    findings = {
        OTHER_FILE: other_file,
        **_of_the_file(artifact, path, model),
        **_of_the_metadata(artifact, metadata, inside),
        **({} if isinstance(reference, str) else _of_the_run(inside, reference)),
    }
    wrong = [finding for finding, found in findings.items() if found]
    return line_of(
        artifact.label, "identity", "faults", 0, len(wrong), "0", "failed" if wrong else "passed", "; ".join(wrong)
    )


def _of_the_file(artifact: Artifact, path: Path, model: ExportedModel) -> dict[str, bool]:
    size, unused, names = size_of_path(path), model.unused_bytes(), model.names()
    found = "" if names is None else f"{', '.join(names.inputs) or 'none'} and {', '.join(names.outputs) or 'none'}"
    return {
        f"it has {size:,} bytes, but its record says {artifact.size_bytes:,}": size != artifact.size_bytes,
        f"{unused:,} of its bytes belong to no part of the model": unused != 0,
        f"its input and output must be named input and output, found {found}": names not in (None, EXPECTED_NAMES),
    }


def _of_the_metadata(artifact: Artifact, metadata: dict[str, str], inside: ModelDescription) -> dict[str, bool]:
    described = artifact.description()
    return {
        "the metadata's child does not have the digest in the metadata": inside.child.digest() != inside.child_digest,
        "the metadata names another child": inside.child_digest != artifact.child_digest,
        **{
            f"the metadata has another {field.replace('_', ' ')}": getattr(inside, field) != getattr(described, field)
            for field in ModelDescription.model_fields
            if field not in ("child", "child_digest")
        },
        **{
            f"the metadata's '{key}' was edited": metadata.get(key) != value
            for key, value in inside.to_metadata().items()
            if key != "dmask.description"  # it contains the others; an older description lacks newer fields
        },
    }


def _of_the_run(inside: ModelDescription, reference: Reference) -> dict[str, bool]:
    normalization = ("mean", "std", "source_resolution", "resize_resolution")
    return {
        "it contains another child than this run": inside.child.digest() != reference.child_digest,
        "it was made from other weights than those of this run": inside.weights_digest != reference.weights_digest,
        "it has other class names than this run": inside.class_names != reference.class_names,
        "it names another accuracy than this run": inside.accuracy != reference.recorded_accuracy,
        "its normalization differs from that of this run": any(
            getattr(inside.preprocessing, field) != getattr(reference.preprocessing, field) for field in normalization
        ),
    }
