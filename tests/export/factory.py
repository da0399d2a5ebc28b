"""A small exported network with random weights for which outputs depend on inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dmask_mobile.nets.build import ChildNetwork, build
from dmask_mobile.records.artifact import Artifact, ModelDescription, Preprocessing
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from export.deployable import Deployable
from export.formats.protocols import ExportRequest, Format
from export.verification.reference import Reference
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
MAX_ERROR = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.25}
"""As a share of the outputs' range, as verification allows by default."""
CLASS_NAMES = ("a", "b", "c", "d", "é")


Written = Callable[..., tuple[ExportRequest, Path]]


def telling_network(child: ChildSpec, seed: int = 0) -> ChildNetwork:
    """Random norm parameters, biases and matching statistics, as after training: nothing folds away or saturates."""
    generator = torch.Generator().manual_seed(seed)
    network = build(child, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0.5, 0.5, generator=generator)
        network.blocks[-1].linear.weight.normal_(generator=generator)
        if child.blocks[-1].hidden_width:
            network.blocks[-1].hidden.weight.normal_(generator=generator)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(torch.randn(8, *child.input_shape[1:], generator=generator))
    return network.eval()


def images_of(child: ChildSpec = CHILD, count: int = 256) -> torch.Tensor:
    return torch.rand(count, 3, child.resolution, child.resolution, generator=torch.Generator().manual_seed(2))


def described(format_name: str, child: ChildSpec = CHILD, seed: int = 0, **fields: object) -> ModelDescription:
    return ModelDescription.model_validate(
        {
            "model_format": format_name,
            "child": child,
            "child_digest": child.digest(),
            "weights_digest": f"seed {seed}",
            "preprocessing": PREPROCESSING,
            "author": "An Author",
            "license": "MIT",
            "class_names": CLASS_NAMES if child.classes == len(CLASS_NAMES) else tuple(map(str, range(child.classes))),
            **fields,
        }
    )


def request_of(
    format_name: str, child: ChildSpec = CHILD, seed: int = 0, largest: float = 1.0, **fields: object
) -> ExportRequest:
    """The request to a format; int8 is calibrated on random images."""
    pixels_to = PREPROCESSING.model_copy(update={"input_range": (0.0, largest)})
    description = described(format_name, child, seed, **{"preprocessing": pixels_to, **fields})
    model = Deployable(telling_network(child, seed), description.preprocessing, description.output)
    calibration = model.as_input(images_of(child, 64)) if description.precision == "int8" else None
    return ExportRequest(model, description, calibration)


def pixels(request: ExportRequest, number: int) -> torch.Tensor:
    """Random 8-bit input images of the model."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(0, 256, (number, *request.description.child.input_shape[1:]), generator=generator)
    return request.model.as_input(levels / 255)


def writer_of(found: Format, format_name: str, folder: Path) -> Written:
    """Writes the model of a request; each request is written once."""
    done: dict[str, tuple[ExportRequest, Path]] = {}

    def write(**asked: object) -> tuple[ExportRequest, Path]:
        key = repr(sorted(asked.items()))
        if key not in done:
            request, path = request_of(format_name, **asked), folder / f"{len(done)}{found.suffix}"  # type: ignore[arg-type]
            found.write(request, path)
            done[key] = request, path
        return done[key]

    return write


def reference(
    child: ChildSpec = CHILD, seed: int = 0, images: int = 256, recorded_accuracy: float | None = None
) -> Reference:
    generator = torch.Generator().manual_seed(1)
    return Reference(
        telling_network(child, seed),
        child.digest(),
        f"seed {seed}",
        PREPROCESSING,
        CLASS_NAMES,
        torch.rand(images, 3, child.resolution, child.resolution, generator=generator),
        torch.randint(0, child.classes, (images,), generator=generator),
        recorded_accuracy,
    )


def exported(format_name: str, folder: Path, child: ChildSpec = CHILD, seed: int = 0, **fields: object) -> Artifact:
    description = described(format_name, child, seed, **fields)
    return export_child(telling_network(child, seed), description, folder, images_of(child)[:32])


def imported_space(padding: str) -> SearchSpace:
    """A space with everything that imported networks have; its widest child is to be exported."""
    return SearchSpace.model_validate(
        {
            "name": f"imported-{padding}",
            "classes": 5,
            "input": {"resolutions": [16]},
            "stem": {"widths": [8], "stride": 1, "activation": "relu6"},
            "stages": [
                {"blocks": [{"kind": "conv", "activation": "silu", "shortcut": True}]},
                {
                    "widths": [12],
                    "blocks": [
                        {"kernels": [5], "stride": 2, "squeeze_widths": [2], "se_activation": "silu"},
                        {"hidden_widths": [20], "kernels": [], "start_kernels": [3], "activation": "hswish",
                         "shortcut": True},
                    ],
                },
                {
                    "widths": [16],
                    "blocks": [{"kind": "fused_inverted_residual", "hidden_widths": [24], "stride": 2,
                                "activation": "relu6"}],
                },
            ],
            "last": None,
            "head": {"hidden_widths": [12], "activation": "hswish"},
            "norm_eps": 1e-3,
            "padding": padding,
        }
    )  # fmt: skip
