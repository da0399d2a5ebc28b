"""The two Protocols of an export format: its writer, and a model opened for verification."""

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
    """The names that an app uses for the inputs and outputs of a model."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


EXPECTED_NAMES = EndNames(("input",), ("output",))
"""The names in every model exported by dmask-mobile, if its format has names."""


class ExportRequest(NamedTuple):
    """A request to export a model.

    ``calibration``: input images of the model, (M, ...) float32, for int8; None for other precisions.
    """

    model: Deployable
    description: ModelDescription
    calibration: Tensor | None = None


class ExportedModel(Protocol):
    """An artifact opened for verification; all its answers are read from the file."""

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Each output by name for input images (M, ...), float32.

        A model exported by dmask-mobile has one output, named ``output`` if its format has names.
        """
        ...

    def names(self) -> EndNames | None:
        """The names of inputs and outputs; normally `EXPECTED_NAMES`, None if the format has no names."""
        ...

    def unused_bytes(self) -> int:
        """The bytes that belong to no part of the model: after its end, in unknown fields, in other files. Normally
        0."""
        ...

    def counts(self) -> Counts | None:
        """Multiply-adds and weights, counted from the graph in the file; None if the format hides the graph."""
        ...

    def stray_operations(self) -> dict[str, int]:
        """The numbers of transposes and casts by name, without those that the settings of the export require.

        Required are, for example, casts to and from a lower precision at inputs and outputs, or of stored weights.
        """
        ...

    def metadata(self) -> dict[str, str]:
        """The strings of `ModelDescription.to_metadata`, and the format's own."""
        ...

    def intermediates(self, image: Tensor) -> Iterator[Tensor] | None:
        """The tensors inside the graph for one image (1, ...), in the order of execution; None if they are hidden."""
        ...


class Format(Protocol):
    """One export format.

    ``suffix``: the suffix of its files. ``package``: the import name of the package that it needs. ``extra``: the name
    of our extra that installs this package (empty if it is always installed).
    """

    suffix: str
    package: str
    extra: str

    @property
    def refused(self) -> Mapping[Precision, str]:
        """The precisions that the format does not support, and the reasons."""
        ...

    def weight_bytes(self, child: ChildSpec, precision: Precision) -> float:
        """Bytes of the child's weights and biases as the format stores them."""
        ...

    @property
    def int8_activations(self) -> bool:
        """Whether the format has int8, with activations in int8 as well."""
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
        """Whether opening a damaged file can crash the whole process."""
        ...

    def write(self, request: ExportRequest, path: Path) -> None:
        """Converts the model and writes it to ``path``, with its description in the format's own metadata.

        Raises:
            Exception: any exception of the converter; then nothing is left at ``path``.
        """
        ...

    def open(self, path: Path) -> ExportedModel:
        """The artifact at ``path``.

        Raises:
            DmaskError: if it cannot be loaded.
        """
        ...
