"""A space around a given network: the step before profiling and searching it."""

from __future__ import annotations

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
GRADIENT_IMAGES, GRADIENT_BATCH = 512, 64


class ImportedSpace(NamedTuple):
    """A written space, its file, that of the weights, and how far the outputs are from the original's.

    ``difference``: the largest, as a share of the outputs' range.
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
        weights: a safetensors file or a state dict of ``torch.save``; ``none`` gives the space without weights; if not
            given, those that a function's model has.
        importance: what the order of channels follows: the weights that read them, the norms that write them, or the
            loss on images.
        data: the images, for ``taylor``.
        progress: told while images are read.

    Raises:
        DmaskError: for a network or weights that cannot be taken over, and when ``output`` exists.
    """
    path = as_path(output)
    _check_output(path, importance, data)
    opened, weights_used = _opened(source, weights)
    from dmask_mobile.importing.network import import_network
    from dmask_mobile.importing.proof import check_outputs
    from dmask_mobile.importing.space_around import space_around

    imported = import_network(opened.model.eval(), opened.resolution, opened.name)
    difference = check_outputs(opened.model, imported)
    space = space_around(imported.child, source, (opened.mean, opened.std), opened.crop)
    weights_path = None
    if weights_used:
        weights_path = path.with_suffix(".safetensors")
        space = _with_weights(space, imported, weights_path, importance, data, progress)
    _write(space, path)
    return ImportedSpace(space, path, weights_path, difference)


def imported_weights(given: AnySpace, space: SearchSpace) -> dict[str, Tensor]:
    """The weights of a space's widest child; none where it has none.

    Args:
        given: the space as the user gave it: its file says where the weights lie.
        space: the space that this is.

    Raises:
        DmaskError: when the file is absent, damaged or another one, and when the widest child is another network.
    """
    if space.weights is None:
        return {}
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.training.checkpoint import load_weights

    again = "restore it, or import the network again: dmask space from"
    if isinstance(given, SearchSpace):
        raise DmaskError(f"the weights of '{space.name}' lie beside its file", "give the path of that file")
    path = as_path(given).parent / space.weights.file
    if not path.is_file():
        raise DmaskError(f"no file '{path}', which holds the weights of '{space.name}'", again)
    if hash_path(path) != space.weights.sha256:
        raise DmaskError(f"'{path}' is not the file that '{given}' names by its checksum", again)
    widest = space.child(space.largest())
    network = ChildNetwork(widest)
    try:
        load_weights(path, network, digest_of_any_resolution(widest))
    except DmaskError as error:
        raise DmaskError(
            error.problem, "keep the last option of every list in the space's file: its widest child is the network"
        ) from error
    return network.state_dict()


def original_network(folder: RunFolder) -> ChildNetwork:
    """The trained network that a run's search started from.

    Raises:
        DmaskError: when there is none, it has other classes than the run's data, or its copy in the run is damaged.
    """
    from dmask_mobile.nets.build import ChildNetwork
    from dmask_mobile.training.checkpoint import load_weights

    space, path = folder.record().space, folder.original_path
    if space is None or not path.is_file():
        raise DmaskError(
            f"there is no '{path}': the search did not start from a trained network for the classes of its data",
            "take another teacher, for example supernet",
        )
    widest = space.child(space.largest())
    network = ChildNetwork(widest)
    load_weights(path, network, digest_of_any_resolution(widest))
    return network


def _check_output(path: Path, importance: Importance, data: AnyData | None) -> None:
    """Checks what needs no model."""
    if path.suffix not in (".yaml", ".yml"):
        raise DmaskError(f"the space is written as YAML, '{path}' has another ending", "give -o NAME.yaml")
    for taken in (path, path.with_suffix(".safetensors")):
        if taken.exists():
            raise DmaskError(f"'{taken}' exists", "choose another file with -o, or remove it")
    if (importance == "taylor") != (data is not None):
        raise DmaskError("the importance 'taylor' is measured on images, the others need none", "give --data with it")


def _opened(source: str, weights: AnyPath | None) -> tuple[OpenedModel, bool]:
    """The model with its weights, and whether they say anything."""
    from dmask_mobile.importing.sources import open_model
    from dmask_mobile.importing.weights_file import load_into, num_classes_of, read_weights

    if weights == NO_WEIGHTS:
        return open_model(source), False
    if weights is None:
        opened = open_model(source)
        if not opened.has_weights:
            raise DmaskError(
                f"the weights of '{source}' would have to be downloaded, which this command does not do",
                "give --weights FILE, or --weights none for the space around the architecture",
            )
        return opened, True
    path = as_path(weights)
    found = read_weights(path)
    opened = open_model(source)
    if not opened.has_weights and (classes := num_classes_of(found)) != _num_classes(opened):
        logger.warning("'%s': the weights are of %d classes", path, classes)
        opened = open_model(source, classes)
    load_into(opened.model, found, path)
    return opened, True


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
    """The space with weights, which are written with their channels in the order of importance."""
    from dmask_mobile.importing.importance import sorted_by_importance
    from dmask_mobile.importing.proof import child_network
    from dmask_mobile.training.checkpoint import save_weights

    gradients = None if data is None else _gradients(space, imported, data, progress)
    state = sorted_by_importance(space, imported.state, gradients, importance)
    save_weights(path, child_network(imported._replace(state=state)), digest_of_any_resolution(imported.child))
    return space.model_copy(update={"weights": ImportedWeights(file=path.name, sha256=hash_path(path))})


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
    """Writes the space as YAML for people: what is the default is left out."""
    import yaml

    from dmask_mobile.records.base import write_atomically

    head = {"format": space.file_format, "version": space.written_version, "name": space.name, "classes": space.classes}
    fields = head | space.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=110)
    write_atomically(path, f"# The space around {space.origin}: its widest network is the original.\n{text}")
