"""The two Protocols of an export format: what writes it, and what it looks like opened for verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from dmask_mobile.records.artifact import ModelDescription, Precision
from dmask_mobile.records.child import ChildSpec
from export.deployable import Deployable


class Counts(NamedTuple):
    """Multiply-adds for one image, and weights, of convolutions and linear layers."""

    macs: int
    params: int


class EndNames(NamedTuple):
    """The names by which an app gives a model its inputs and asks for its outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


EXPECTED_NAMES = EndNames(("input",), ("output",))
"""Those of every model of ours, where its format has names."""


class ExportRequest(NamedTuple):
    """What to export.

    ``calibration``: images as the model takes them, (M, ...) float32, for int8; None for the other precisions.
    """

    model: Deployable
    description: ModelDescription
    calibration: Tensor | None = None


class ExportedModel(Protocol):
    """An artifact opened for verification; everything it says is read from the file."""

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Each output, by name, for images as the model takes them, (M, ...) float32.

        A model of ours has one output, called ``output`` where its format has names.
        """
        ...

    def names(self) -> EndNames | None:
        """The names of inputs and outputs; `EXPECTED_NAMES` for a model of ours, None where the format has none."""
        ...

    def unused_bytes(self) -> int:
        """Bytes that belong to no part of the model: after the end of a file, unknown fields, other files. Ours: 0."""
        ...

    def counts(self) -> Counts | None:
        """Multiply-adds and weights, counted on the file's own graph; None where the format hides them."""
        ...

    def stray_operations(self) -> dict[str, int]:
        """Transposes and casts by their names in the format, without those that the request made necessary.

        Necessary are the casts to and from a lower precision at inputs and outputs, say, or of stored weights.
        """
        ...

    def metadata(self) -> dict[str, str]:
        """The strings of `ModelDescription.to_metadata`, and the format's own."""
        ...

    def intermediates(self, image: Tensor) -> Iterator[Tensor] | None:
        """The tensors inside the graph for one image (1, ...), in the order of execution; None where hidden."""
        ...


class Format(Protocol):
    """One export format.

    ``suffix``: of its files; ``package``: what must be installed, by its import name; ``extra``: the name of our extra
    that brings it (empty: it always comes along).
    """

    suffix: str
    package: str
    extra: str

    @property
    def refused(self) -> Mapping[Precision, str]:
        """The precisions that the format does not have, and why."""
        ...

    def weight_bytes(self, child: ChildSpec, precision: Precision) -> float:
        """Bytes of the child's weights and biases as the format stores them."""
        ...

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that its input may have."""
        ...

    @property
    def dynamic_batch(self) -> bool:
        """Whether the batch size may be left open."""
        ...

    @property
    def crashes_on_damage(self) -> bool:
        """Whether a damaged file can take the whole process with it when it is opened."""
        ...

    def write(self, request: ExportRequest, path: Path) -> None:
        """Converts the model to ``path``, with its description in the format's own metadata.

        Raises:
            Exception: whatever the converter raises; nothing is left at ``path`` then.
        """
        ...

    def open(self, path: Path) -> ExportedModel:
        """The artifact at ``path``.

        Raises:
            DmaskError: when it does not load.
        """
        ...
