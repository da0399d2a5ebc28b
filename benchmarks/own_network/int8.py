"""How often a trained network gives the same answers after its export in int8."""

from __future__ import annotations

from pathlib import Path

import torch
from search_quality.once import CpuClock, Result, folder_of, once

from dmask_mobile.api.exporting import ExportSettings
from dmask_mobile.data.images import seen
from dmask_mobile.records.artifact import ModelDescription, ModelFormat, Preprocessing
from dmask_mobile.temporary import temporary_folder
from dmask_mobile.training.checkpoint import content_digest
from export.deployable import Deployable
from export.formats.registry import format_named
from export.verification.numerics import compare
from export.write import export_child
from own_network.given import Given
from own_network.jobs import Job, trained_network

IMAGES_AT_ONCE = 100


def int8(given: Given, job: Job, model_format: ModelFormat) -> Result:
    """Agreement and accuracies on all validation images: ``agreement``, ``val`` in fp32, ``val_int8``; each in 0..1.

    The quantizer sees random training images, as many as ``dmask export`` gives it.
    """

    def compared(folder: Path, clock: CpuClock) -> Result:
        network, data = trained_network(given, job).eval(), given.data(job.child.resolution)
        preprocessing = Preprocessing(mean=data.mean, std=data.std)
        description = ModelDescription(
            model_format=model_format,
            precision="int8",
            child=job.child,
            child_digest=job.child.digest(),
            weights_digest=content_digest(network.state_dict()),
            preprocessing=preprocessing,
            class_names=data.class_names,
        )
        calibration = seen(data.train.some(ExportSettings().calibration_images).pixels(), data)
        images, labels_N = seen(data.val.pixels(), data), data.val.labels
        with torch.no_grad():
            reference_NK = torch.cat(
                [Deployable(network, preprocessing)(part) for part in torch.split(images, IMAGES_AT_ONCE)]
            )
        with temporary_folder() as temporary:
            artifact = export_child(network, description, temporary, calibration)
            (scores_NK,) = format_named(model_format).open(temporary / artifact.path).run(images).values()
        found = compare(reference_NK, scores_NK, labels_N)
        return {"agreement": found.top1_agreement, "val": found.reference_accuracy, "val_int8": found.accuracy}

    trained = folder_of(given.work, "train", job.identity(given)).name
    return once(given.work, "int8", {"trained": trained, "format": model_format}, compared)
