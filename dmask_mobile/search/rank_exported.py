"""Candidates ranked by the accuracy of their exports, for example in int8, which hurts some children more than others.

An export takes seconds to minutes, so only the best candidates in fp32 are exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from dmask_mobile.data.images import ImageData, ImageSet, seen
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import ModelFormat, Precision
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.search.rank import Candidate, recalibrated_subnet
from dmask_mobile.supernet.supernet import MaskedSupernet

NUM_EXPORTED = 5
CALIBRATION_IMAGES, RANKING_IMAGES = 256, 512  # at most


class ExportScorer(Protocol):
    """Measures the accuracy of exports. It is made by the API, because a search may not import ``export``."""

    @property
    def model_format(self) -> ModelFormat:
        """The format of the exports."""
        ...

    @property
    def precision(self) -> Precision:
        """The precision of the exports."""
        ...

    def accuracy(
        self, network: ChildNetwork, child: ChildSpec, calibration_MCRR: Tensor, images_NCRR: Tensor, labels_N: Tensor
    ) -> float:
        """Top-1 accuracy in 0..1 of the exported network.

        Args:
            network: the network, on the CPU.
            child: its description.
            calibration_MCRR: images in 0..1 for the quantizer.
            images_NCRR: images in 0..1 that are classified.
            labels_N: their classes.

        Raises:
            DmaskError: if the network cannot be exported.
        """
        ...


def rank_exported(
    candidates: Sequence[Candidate],
    supernet: MaskedSupernet,
    scorer: ExportScorer,
    images: tuple[ImageSet, ImageSet],
    data: ImageData,
    progress: Progress = silent,
) -> list[Candidate]:
    """The candidates in a new order: first the best `NUM_EXPORTED` by the accuracy of their exports, then the others.

    The given order is kept among the others and between equal accuracies. Batch norms are recalibrated, because an
    exported network needs running statistics of its own.

    Args:
        candidates: the children, the best one in fp32 first.
        supernet: the shared weights.
        scorer: exports and measures.
        images: the images for recalibration and calibration, and those that are classified.
        data: how networks see images.
        progress: is called after each export.
    """
    calibration, ranking = images[0].some(CALIBRATION_IMAGES), images[1].some(RANKING_IMAGES)
    exported, rest = [], candidates[NUM_EXPORTED:]
    for number, candidate in enumerate(candidates[:NUM_EXPORTED], start=1):
        child = supernet.space.child(candidate.choice)
        own = data.at(child.resolution)
        network = recalibrated_subnet(supernet, candidate.choice, images[0], own).cpu()
        accuracy = scorer.accuracy(
            network, child, seen(calibration.pixels(), own), seen(ranking.pixels(), own), ranking.labels
        )
        exported.append(candidate._replace(exported_accuracy=accuracy))
        note = f"{scorer.model_format} {scorer.precision}, accuracy {accuracy:.1%}"
        progress("rank exported", number, min(NUM_EXPORTED, len(candidates)), note)
    return [*sorted(exported, key=lambda candidate: -(candidate.exported_accuracy or 0.0)), *rest]
