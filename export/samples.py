"""A small source file for an app that loads an exported model and classifies one image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.base import write_atomically


class Sample(NamedTuple):
    """The format that a platform's sample loads, and its template."""

    model_format: str
    template: str


SAMPLES: dict[str, Sample] = {
    "android": Sample("litert", "Classifier.kt"),
    "ios": Sample("coreml", "Classifier.swift"),
}


def check_sample(platform: str, formats: Sequence[str], channels: int = 3) -> None:
    """Checks that the sample's format is exported, of a network that takes RGB.

    Raises:
        DmaskError: when it is not, and for an unknown platform.
    """
    if channels != 3:
        raise DmaskError(f"samples classify RGB images, the child takes {channels} channels", "leave --sample out")
    if platform not in SAMPLES:
        raise DmaskError(f"no sample for '{platform}'", f"choose from {', '.join(SAMPLES)}")
    wanted = SAMPLES[platform].model_format
    if wanted not in formats:
        raise DmaskError(f"the {platform} sample loads {wanted}, which is not exported", f"add --format {wanted}")


def write_sample(platform: str, artifacts: Sequence[Artifact], folder: Path) -> Path:
    """Writes the sample for the first artifact of the platform's format into ``folder``; returns its path."""
    sample = SAMPLES[platform]
    artifact = next(artifact for artifact in artifacts if artifact.model_format == sample.model_format)
    resolution = artifact.child.resolution
    text = Template(files("export").joinpath("templates", sample.template).read_text(encoding="utf-8")).substitute(
        name=artifact.child.name,
        digest=artifact.child_digest,
        file=artifact.path,
        stem=Path(artifact.path).stem,
        resolution=resolution,
        source_resolution=max(resolution, artifact.preprocessing.source_resolution or resolution),
        top_value=f"{artifact.preprocessing.input_range[1]:g}",
        channels_last="true" if artifact.preprocessing.layout == "NHWC" else "false",
        output=artifact.output,
        # A Kotlin string would take $ for the start of an expression; JSON's escapes are Kotlin's otherwise.
        labels=", ".join(json.dumps(name).replace("$", "\\$") for name in artifact.class_names),
    )
    path = folder / sample.template
    write_atomically(path, text)
    return path
