"""A small source file for an app that loads an exported model and classifies one image."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.base import write_atomically
from export.golden import golden_stem


class Sample(NamedTuple):
    """The format that a platform's sample loads, its template, and the template of its unit test."""

    model_format: str
    template: str
    test: str


SAMPLES: dict[str, Sample] = {
    "android": Sample("litert", "Classifier.kt", "ClassifierTest.kt"),
    "ios": Sample("coreml", "Classifier.swift", "ClassifierTests.swift"),
}


def check_sample(platform: str, formats: Sequence[str], channels: int = 3) -> None:
    """Checks that the sample's format is exported and that the network's input is RGB.

    Raises:
        DmaskError: if not, or for an unknown platform.
    """
    if channels != 3:
        raise DmaskError(f"samples classify RGB images, but the child takes {channels} channels", "leave out --sample")
    if platform not in SAMPLES:
        raise DmaskError(f"no sample for '{platform}'", f"choose from {', '.join(SAMPLES)}")
    wanted = SAMPLES[platform].model_format
    if wanted not in formats:
        raise DmaskError(f"the {platform} sample loads {wanted}, which is not exported", f"add --format {wanted}")


def write_sample(platform: str, artifacts: Sequence[Artifact], folder: Path) -> Path:
    """Writes the sample for the first artifact of the platform's format to ``folder``; returns its path.

    It also writes the unit test that compares the app with the artifact's golden pair (`export.golden`).
    """
    sample = SAMPLES[platform]
    artifact = next(artifact for artifact in artifacts if artifact.model_format == sample.model_format)
    resolution = artifact.child.resolution
    values = {
        "name": artifact.child.name,
        "digest": artifact.child_digest,
        "file": artifact.path,
        "file_literal": _literal(platform, artifact.path),
        "stem": Path(artifact.path).stem,
        "stem_literal": _literal(platform, Path(artifact.path).stem),
        "golden_literal": _literal(platform, f"{golden_stem(artifact)}.json"),
        "resolution": resolution,
        "source_resolution": max(resolution, artifact.preprocessing.source_resolution or resolution),
        "resize_resolution": artifact.preprocessing.resize_resolution
        or max(resolution, artifact.preprocessing.source_resolution or resolution),
        "top_value": f"{artifact.preprocessing.input_range[1]:g}",
        "channels_last": "true" if artifact.preprocessing.layout == "NHWC" else "false",
        "output": artifact.output,
        "labels": ", ".join(_literal(platform, name) for name in artifact.class_names),
    }
    for name in (sample.template, sample.test):
        template = Template(files("export").joinpath("templates", name).read_text(encoding="utf-8"))
        write_atomically(folder / name, template.substitute(values))
    return folder / sample.template


def _literal(platform: str, text: str) -> str:
    """``text`` as an ASCII string literal of the platform's language, so that text is never code."""
    if platform == "android":  # Kotlin has JSON's escapes, except for $, which would begin an expression
        return json.dumps(text).replace("$", "\\$")
    plain = string.ascii_letters + string.digits + " -_."
    return '"' + "".join(c if c in plain else f"\\u{{{ord(c):x}}}" for c in text) + '"'
