"""Trains the child of a run, which is the step after the search."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyData, AnyPath, as_path
from dmask_mobile.api.describing import describe_training
from dmask_mobile.api.importing import original_network
from dmask_mobile.api.run_data import check_beginning, data_of, locks_run, new_record
from dmask_mobile.cost_names import our_package
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import hash_path
from dmask_mobile.records.data import DataOptions

if TYPE_CHECKING:
    from dmask_mobile.data.images import ImageData
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.estimate import Estimate
    from dmask_mobile.run import RunFolder
    from dmask_mobile.supernet.supernet import MaskedSupernet
    from dmask_mobile.training.distillation import Teacher
    from dmask_mobile.training.machine import Machine
    from dmask_mobile.training.train import TrainSettings

logger = logging.getLogger(__name__)

OF_DATA = {
    "preprocessing",
    "class_names",
    "data",
    "data_digest",
    "data_options",
    "data_notes",
}  # fields of a run's record


@locks_run("dmask train")
def train(
    run: AnyPath,
    *,
    data: AnyData | None = None,
    settings: TrainSettings | None = None,
    restart: bool = False,
    previous: bool = False,
    data_options: DataOptions | None = None,
    machine: Machine | None = None,
    progress: Progress = silent,
) -> float:
    """Trains the run's child and returns its top-1 accuracy on the validation images; resumes after an interruption.

    >>> dm.train("runs/b", settings=dm.TrainSettings(epochs=1, init="supernet")) == dm.Run("runs/b").accuracy
    True

    Args:
        run: the run folder.
        data: the data, if it is not that of the run.
        data_options: memory, workers and mirroring; the default is the options of the search.
        settings: the recipe, and whether to start from random weights or from the child's slice of the supernet.
        restart: start again; the weights of an earlier training are kept until this one ends.
        previous: resume from the checkpoint before the last.
        machine: device, number format and processes; the default is one process on the best available device.
        progress: is called after each epoch.

    Raises:
        DmaskError: if the folder has no child, no data is known or the classes differ.
    """
    from dmask_mobile.run import RunFolder
    from dmask_mobile.training.checkpoint import save_weights
    from dmask_mobile.training.machine import Machine
    from dmask_mobile.training.train import TrainSettings, train_child

    machine, settings, folder = machine or Machine(), settings or TrainSettings(), RunFolder(as_path(run))
    check_beginning(restart, previous)
    record, child = folder.record(), folder.child()
    _check_qat(settings)
    images = data_of(record, child, data, options=data_options, progress=progress)
    network, teacher = _network_and_teacher(folder, images, settings, machine)
    digest = child.digest()
    trained = train_child(
        network,
        images,
        settings,
        folder.train_checkpoint,
        progress,
        child_digest=digest,
        machine=machine,
        teacher=teacher,
        restart=restart,
        previous=previous,
    )
    if machine.is_main:
        save_weights(folder.weights_path, network, digest)
        update = {
            **new_record(images, record.data_options.with_said(data_options)).model_dump(include=OF_DATA),
            "train_settings": settings.model_dump(mode="json"),
            "trained_on": machine.describe(),
            "accuracy": trained.accuracy,
            "compared": {
                "plain": trained.plain,
                **({} if trained.averaged is None else {"averaged": trained.averaged}),
            },
            "weights_sha256": hash_path(folder.weights_path),
        }
        type(record).model_validate({**record.model_dump(), **update}).write(folder.record_path)
        with machine.full_precision(network):  # the accuracy was measured in this way, too
            describe_training(folder, network, images, progress)
        logger.info("'%s': the child is trained, accuracy %.2f%%", folder.path, 100 * trained.accuracy)
    machine.wait()
    return trained.accuracy


def estimate_train(
    run: AnyPath,
    *,
    data: AnyData | None = None,
    settings: TrainSettings | None = None,
    data_options: DataOptions | None = None,
    machine: Machine | None = None,
    progress: Progress = silent,
) -> Estimate:
    """Estimates the duration and memory of a training from two steps of each kind; nothing is written.

    >>> [step.kind for step in dm.estimate_train("runs/a").steps]
    ['training', 'validation']

    The arguments are those of `train`.
    """
    from dmask_mobile.run import RunFolder
    from dmask_mobile.training.estimate import estimate_training
    from dmask_mobile.training.machine import Machine
    from dmask_mobile.training.train import Trainer, TrainSettings

    machine, settings, folder = machine or Machine(), settings or TrainSettings(), RunFolder(as_path(run))
    _check_qat(settings)
    images = data_of(folder.record(), folder.child(), data, options=data_options, progress=progress)
    network, teacher = _network_and_teacher(folder, images, settings, machine)
    return estimate_training(Trainer(network, images, settings, machine, teacher))


def _check_qat(settings: TrainSettings) -> None:
    """Checks the format in the settings' ``qat``.

    Raises:
        DmaskError: for a format that is not installed, has no int8, or whose int8 leaves activations in float.
    """
    if settings.qat is None:
        return
    our_package("export")
    from export.formats.registry import format_named
    from export.write import plan_exports

    plan_exports([settings.qat], ["int8"])
    if not format_named(settings.qat).int8_activations:
        raise DmaskError(
            f"--qat imitates int8 activations, but int8 of format {settings.qat} quantizes only weights",
            "train without --qat, export int8 and look at 'dmask verify'; or take --qat onnx, litert or executorch",
        )


def _network_and_teacher(
    folder: RunFolder, images: ImageData, settings: TrainSettings, machine: Machine
) -> tuple[ChildNetwork, Teacher | None]:
    """The child with its initial weights, and its teacher, if there is one."""
    import torch

    from dmask_mobile.nets.build import build
    from dmask_mobile.search.rank import recalibrated_subnet
    from dmask_mobile.supernet.subnet import extract_subnet
    from dmask_mobile.training.distillation import Teacher, timm_teacher

    network = build(folder.child(), torch.Generator().manual_seed(settings.seed))
    if settings.init == "supernet":
        supernet, choice = _trained_supernet(folder), folder.result().choice
        if supernet.space.weights is None:
            inherited = extract_subnet(supernet, choice)
        else:  # few epochs follow: the norms of the original and of a narrower child differ
            inherited = recalibrated_subnet(supernet, choice, images.train, images)
        network.load_state_dict(inherited.state_dict())
    distillation = settings.distillation
    if distillation is None:
        return network, None
    if distillation.teacher == "supernet":
        supernet = _trained_supernet(folder)
        widest = recalibrated_subnet(supernet, supernet.space.largest(), images.train, images)
        return network, Teacher(widest, machine.device)
    if distillation.teacher == "original":
        return network, Teacher(original_network(folder), machine.device)
    resolution = images.resolution or images.decoded_at
    return network, timm_teacher(distillation, images.classes, images, resolution, machine.device)


def _trained_supernet(folder: RunFolder) -> MaskedSupernet:
    """The supernet of the run's search.

    Raises:
        DmaskError: if no search has finished in this run.
    """
    from dmask_mobile.search.checkpoint import restore_supernet
    from dmask_mobile.supernet.supernet import MaskedSupernet

    space = folder.record().space
    if space is None or not folder.search_result.exists():
        raise DmaskError(
            f"'{folder.path}' contains no finished search to take weights from",
            "train with --init scratch and without that teacher",
        )
    supernet = MaskedSupernet(space)
    restore_supernet(folder.search_checkpoint, supernet)
    return supernet
