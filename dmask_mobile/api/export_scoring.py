"""The accuracy of a child after its export, by which a search may rank its candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dmask_mobile.api.exporting import ExportSettings, describe_model
from dmask_mobile.cost_names import our_package
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.artifact import ModelFormat, Precision
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.run import RunRecord
from dmask_mobile.temporary import temporary_folder

if TYPE_CHECKING:
    from torch import Tensor

    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.search.settings import SearchSettings

DEFAULT_FORMAT = "onnx"


@dataclass(frozen=True)
class ExportAccuracy:
    """`ExportScorer` of a search: writes a model of ``model_format`` and lets it classify images.

    ``record``: that of the run, with preprocessing and class names.
    """

    record: RunRecord
    model_format: ModelFormat
    precision: Precision

    def accuracy(
        self, network: ChildNetwork, child: ChildSpec, calibration_MCRR: Tensor, images_NCRR: Tensor, labels_N: Tensor
    ) -> float:
        """Top-1 accuracy in 0..1 of the exported network; see `search.rank_exported.ExportScorer`."""
        from dmask_mobile.training.checkpoint import content_digest
        from export.deployable import as_input
        from export.formats.registry import format_named
        from export.write import export_child

        digest = content_digest(network.state_dict())
        description = describe_model(self.record, child, digest, self.model_format, self.precision, ExportSettings())
        with temporary_folder() as folder:
            artifact = export_child(network, description, folder, calibration_MCRR)
            model = format_named(self.model_format).open(folder / artifact.path)
            (scores_NK,) = model.run(as_input(images_NCRR, description.preprocessing)).values()
        return float((scores_NK.nan_to_num(nan=-math.inf).argmax(1) == labels_N).double().mean())


def parse_rank_precision(
    text: str, settings: SearchSettings, samples: int | None
) -> tuple[ModelFormat, Precision] | None:
    """The format and precision whose accuracy ranks candidates; None for ``fp32``, which needs no export.

    Args:
        text: ``fp32`` or ``int8[:FORMAT]``; the default format is ONNX.
        settings: those of the search.
        samples: the number of children that the search draws; None for its default.

    Raises:
        DmaskError: for any other text, a format that is unknown, not installed or has no int8, or a search that does
            not rank.
    """
    precision, separator, name = text.partition(":")
    if precision not in ("fp32", "int8") or (separator and (precision == "fp32" or not name)):
        raise DmaskError(
            f"--rank-precision must be fp32 or int8[:FORMAT], got '{shown(text)}'", "for example int8:litert"
        )
    if precision == "fp32":
        return None
    our_package("export")
    from dmask_mobile.search.result import num_samples
    from export.write import plan_exports

    ((model_format, checked),) = plan_exports([name or DEFAULT_FORMAT], [precision]).pairs
    if num_samples(settings, samples) == 1:
        raise DmaskError(
            f"--rank-precision {shown(text)} needs candidates to rank, but this search takes the best one by the gates",
            "add --samples 24",
        )
    return model_format, checked
