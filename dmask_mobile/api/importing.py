"""Makes a space around a given network, before it is profiled and searched."""

from __future__ import annotations

import copy
import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dmask_mobile.api.arguments import AnyData, AnyPath, AnySpace, as_path
from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.artifact import hash_path
from dmask_mobile.records.setting_names import Importance
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.space_options import ImportedWeights

if TYPE_CHECKING:
    from torch import Tensor

    from dmask_mobile.importing.network import ImportedNetwork
    from dmask_mobile.importing.sources import OpenedModel
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.run import RunFolder

logger = logging.getLogger(__name__)

NO_WEIGHTS = "none"
CHOOSE_ANOTHER = "choose another file with -o, or remove it"
GRADIENT_IMAGES, GRADIENT_BATCH = 512, 64


class ImportedSpace(NamedTuple):
    """A written space, its file and the file of its weights.

    ``difference``: the largest difference of its outputs from the original's, as a share of the outputs' range.
    """

    space: SearchSpace
    path: Path
    weights: Path | None
    difference: float


def import_space(
    source: str,
    output: AnyPath,
    *,
    weights: AnyPath | None = None,
    importance: Importance = "l1",
    data: AnyData | None = None,
    progress: Progress = silent,
) -> ImportedSpace:
    """The space around a network, written to a YAML file, with the network's weights beside it.

    >>> imported = dm.import_space("torchvision:mobilenet_v3_small", "v3.yaml", weights="none")
    >>> imported.difference < 1e-5, imported.space.origin
    (True, 'torchvision:mobilenet_v3_small')

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, or ``module:function``, whose function returns a model.
        output: the YAML file.
        weights: a safetensors file or a state dict of ``torch.save``; ``none`` gives the space without weights. The
            default is the weights that the model of a function already has.
        importance: what orders the channels: the weights that read them, the norms that write them, or the loss on
            images.
        data: the images for ``taylor``.
        progress: is called while images are read.

    Raises:
        DmaskError: for a network or weights that cannot be imported, and if ``output`` exists.
    """
    path = as_path(output)
    weights_path = None if weights == NO_WEIGHTS else path.with_suffix(".safetensors")
    _check_output(path, weights_path, importance, data)
    opened = _opened(source, weights)
    from dmask_mobile.importing.network import import_network
    from dmask_mobile.importing.proof import check_outputs
    from dmask_mobile.importing.space_around import space_around

    imported = import_network(opened.model.eval(), opened.resolution, opened.name)
    difference = check_outputs(opened.model, imported)
    space = space_around(imported.child, source, (opened.mean, opened.std), opened.crop)
    if weights_path is not None:
        space = _with_weights(space, imported, weights_path, importance, data, progress)
    _write(space, path)
    return ImportedSpace(space, path, weights_path, difference)


def imported_weights(given: AnySpace, space: SearchSpace) -> dict[str, Tensor]:
    """The weights of a space's widest child; empty if the space has no weights.

    Args:
        given: the space as the user gave it; the weights are beside its file.
        space: the same space as an object.

    Raises:
        DmaskError: if the file is absent, damaged or another one, or the widest child is another network.
    """
    path = weights_file(given, space)
    if path is None:
        return {}
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.training.checkpoint import load_weights

    widest = space.child(space.largest())
    network = ChildNetwork(widest)
    try:
        load_weights(path, network, digest_of_any_resolution(widest))
    except DmaskError as error:
        raise DmaskError(
            error.problem, "keep the last option of every list in the space's file: its widest child is the network"
        ) from error
    return network.state_dict()


def weights_file(given: AnySpace, space: SearchSpace) -> Path | None:
    """The file with the weights of a space's widest child; None if the space has no weights.

    The arguments are those of `imported_weights`.

    Raises:
        DmaskError: if the file is absent or another one.
    """
    if space.weights is None:
        return None
    again = "restore it, or import the network again: dmask space from"
    if isinstance(given, SearchSpace):
        raise DmaskError(f"the weights of '{space.name}' are beside its file", "give the path of that file")
    path = as_path(given).parent / space.weights.file
    if not path.is_file():
        raise DmaskError(f"no file '{path}', which contains the weights of '{space.name}'", again)
    if hash_path(path) != space.weights.sha256:
        raise DmaskError(f"'{path}' does not have the checksum in '{given}'", again)
    return path


def original_network(folder: RunFolder) -> ChildNetwork:
    """The trained network that a run's search started from.

    Raises:
        DmaskError: if there is none, it has other classes than the run's data, or its copy in the run is damaged.
    """
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.training.checkpoint import load_weights

    space, path = folder.record().space, folder.original_path
    if space is None or not path.is_file():
        raise DmaskError(
            f"there is no '{path}': the search did not start from a trained network for the classes of its data",
            "choose another teacher, for example supernet",
        )
    widest = space.child(space.largest())
    network = ChildNetwork(widest)
    load_weights(path, network, digest_of_any_resolution(widest))
    return network


def _check_output(path: Path, weights_path: Path | None, importance: Importance, data: AnyData | None) -> None:
    """Checks the arguments that can be checked before the model is made."""
    from dmask_mobile.training.checkpoint import child_of_weights

    if path.suffix not in (".yaml", ".yml"):
        raise DmaskError(f"a space is written as a YAML file, got '{path}'", "give -o NAME.yaml")
    if path.exists() or path.is_symlink():
        raise DmaskError(f"'{path}' exists", CHOOSE_ANOTHER)
    # Weights without a space are left by a command that was killed between the two; `_with_weights` compares them.
    if weights_path is not None and weights_path.exists() and child_of_weights(weights_path) is None:
        raise DmaskError(f"'{weights_path}' exists", CHOOSE_ANOTHER)
    if (importance == "taylor") != (data is not None):
        raise DmaskError(
            "the importance 'taylor' is measured on images, and the others use none", "give --data with taylor only"
        )


def _opened(source: str, weights: AnyPath | None) -> OpenedModel:
    """The model with its weights."""
    from dmask_mobile.importing.sources import open_model
    from dmask_mobile.importing.weights_file import check_values, load_into, num_classes_of, read_weights

    if weights == NO_WEIGHTS:
        return open_model(source)
    if weights is None:
        opened = open_model(source)
        if not opened.has_weights:
            raise DmaskError(
                f"the weights of '{source}' would have to be downloaded, which this command does not do",
                "give --weights FILE, or --weights none for the space around the architecture",
            )
        check_values(opened.model.state_dict(), source)
        return opened
    path = as_path(weights)
    found = read_weights(path)
    opened = open_model(source)
    if not opened.has_weights and (classes := num_classes_of(found, path)) != _num_classes(opened):
        logger.warning("'%s': the weights are for %d classes", path, classes)
        opened = open_model(source, classes)
    load_into(opened.model, found, path)
    return opened


def _num_classes(opened: OpenedModel) -> int:
    return len(next(reversed(opened.model.state_dict().values())))


def _with_weights(
    space: SearchSpace,
    imported: ImportedNetwork,
    path: Path,
    importance: Importance,
    data: AnyData | None,
    progress: Progress,
) -> SearchSpace:
    """Writes the weights with their channels in the order of importance; returns the space with their file."""
    from dmask_mobile.importing.importance import sorted_by_importance
    from dmask_mobile.importing.proof import child_network
    from dmask_mobile.training.checkpoint import save_weights

    gradients = None if data is None else _gradients(space, imported, data, progress)
    state = sorted_by_importance(space, imported.state, gradients, importance)
    network, digest = child_network(imported._replace(state=state)), digest_of_any_resolution(imported.child)
    if not path.exists():
        save_weights(path, network, digest)
    elif not _contains(path, network, digest):
        raise DmaskError(f"'{path}' exists and contains other weights", CHOOSE_ANOTHER)
    return space.model_copy(update={"weights": ImportedWeights(file=path.name, sha256=hash_path(path))})


def _contains(path: Path, network: ChildNetwork, digest: str) -> bool:
    """Whether a file contains exactly the weights of ``network``."""
    import torch

    from dmask_mobile.training.checkpoint import load_weights

    found = copy.deepcopy(network)
    try:
        load_weights(path, found, digest)
    except DmaskError:
        return False
    state = found.state_dict()
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def digest_of_any_resolution(child: ChildSpec) -> str:
    """The digest of a network at 1 px: weights do not depend on the resolution, which a user may lower."""
    return child.model_copy(update={"resolution": 1}).digest()


def _gradients(space: SearchSpace, imported: ImportedNetwork, data: AnyData, progress: Progress) -> dict[str, Tensor]:
    from dmask_mobile.data.batches import batches
    from dmask_mobile.data.load import load_data
    from dmask_mobile.importing.gradients import loss_gradients
    from dmask_mobile.importing.proof import child_network
    from dmask_mobile.records.data import DataOptions

    found = load_data(data, space.resolution, DataOptions(), progress, crop=space.input.crop)
    images = found.normalized_by(space.input)
    loaded = itertools.islice(batches(images.train, images, GRADIENT_BATCH, 0), GRADIENT_IMAGES // GRADIENT_BATCH)
    pairs = ((batch.images, batch.labels) for batch in loaded)
    return loss_gradients(child_network(imported), pairs, images.classes == space.classes)


def _write(space: SearchSpace, path: Path) -> None:
    """Writes the space as YAML for people; fields with their default values are left out."""
    import yaml

    from dmask_mobile.records.base import write_atomically

    head = {"format": space.file_format, "version": space.written_version, "name": space.name, "classes": space.classes}
    fields = head | space.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=110)
    write_atomically(path, f"# The space around {space.origin}: its widest network is the original.\n{text}")
