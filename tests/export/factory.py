"""A small network with random but telling weights, exported."""

from __future__ import annotations

from pathlib import Path

import torch

from dmask_mobile.nets.build import ChildNetwork, build
from dmask_mobile.records.artifact import Artifact, Preprocessing
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from export.deployable import Deployable
from export.verify import Reference
from export.write import export_child

SPACE = SearchSpace.model_validate(
    {
        "name": "export",
        "classes": 5,
        "input": {"resolutions": [16]},
        "stem": {"widths": [8], "stride": 1},
        "stages": [
            {"blocks": 2, "widths": [8], "expansions": [2], "squeeze_excite": [True], "activation": "hswish"},
            {"blocks": 1, "widths": [16], "stride": 2, "expansions": [3], "kernels": [5], "se_gate": "sigmoid",
             "squeeze_excite": [True]},
        ],
        "last": {"widths": [24]},
    }
)  # fmt: skip
CHILD = SPACE.child(SPACE.largest())
PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
CLASS_NAMES = ("a", "b", "c", "d", "é")


def telling_network(child: ChildSpec, seed: int = 0) -> ChildNetwork:
    """Random norm parameters, biases and matching statistics, as after training: nothing folds away or saturates."""
    generator = torch.Generator().manual_seed(seed)
    network = build(child, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0.5, 0.5, generator=generator)
        network.blocks[-1].linear.weight.normal_(generator=generator)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(torch.randn(8, *child.input_shape[1:], generator=generator))
    return network.eval()


def reference(child: ChildSpec = CHILD, seed: int = 0, images: int = 256) -> Reference:
    generator = torch.Generator().manual_seed(1)
    return Reference(
        child,
        Deployable(telling_network(child, seed), PREPROCESSING.mean, PREPROCESSING.std),
        torch.rand(images, 3, child.resolution, child.resolution, generator=generator),
        torch.randint(0, child.classes, (images,), generator=generator),
    )


def exported(format_name: str, folder: Path, child: ChildSpec = CHILD, seed: int = 0) -> Artifact:
    return export_child(child, telling_network(child, seed), PREPROCESSING, CLASS_NAMES, format_name, folder)
