"""An ncnn model opened for verification: it runs in ncnn and is counted from its param file."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import parse_json, read_bytes, read_text
from export.formats.limits import MAX_MODEL_BYTES, MAX_TEXT_BYTES, check_tensor_sizes
from export.formats.ncnn.graph import infer_shapes, read_layers, stored_bytes
from export.formats.protocols import Counts, EndNames

OFF = (  # for float32 arithmetic on every machine
    "use_vulkan_compute",
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)


FILES = ("model.param", "model.bin", "labels.txt", "description.json")


class NcnnModel:
    """`ExportedModel` for ncnn, on one thread.

    ncnn does not check its files: it accepts a truncated param file. So the files are checked before ncnn reads them.

    Raises:
        DmaskError: if the folder cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._layers = read_layers(read_text(path / "model.param", MAX_TEXT_BYTES))
            self._shapes = infer_shapes(self._layers)
            check_tensor_sizes(self._shapes.values())
            if not {"input", "output"} <= set(self._shapes):
                raise ValueError("the param file has no blobs 'input' and 'output'")
            weights = read_bytes(path / "model.bin", MAX_MODEL_BYTES)
            promised = stored_bytes(self._layers, weights)
            if promised != len(weights):
                raise ValueError(f"model.bin must have {promised} bytes, found {len(weights)}")
            self._metadata = _strings(parse_json(read_text(path / "description.json", MAX_TEXT_BYTES)))
            labels = read_text(path / "labels.txt", MAX_TEXT_BYTES)
            if labels != "".join(f"{name}\n" for name in parse_json(self._metadata["dmask.class_names"])):
                raise ValueError("labels.txt does not contain the class names of description.json")
            self._metadata["labels.txt"] = labels
            self._net = load_net(path)
        except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError) as error:
            raise DmaskError(f"'{path}' cannot be loaded as an ncnn model: {error}", "export it again") from error
        self._path = path

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """The output, one image after the other; see `ExportedModel`."""
        return {"output": torch.stack([self._extract(self._extractor(image), "output") for image in images])}

    def _extractor(self, image_CHW: Tensor) -> Any:
        import ncnn

        if tuple(image_CHW.shape) != self._shapes["input"]:
            raise DmaskError(
                f"'{self._path}' needs images of shape {self._shapes['input']}, got {tuple(image_CHW.shape)}",
                "scale the images to the model's resolution",
            )
        extractor = self._net.create_extractor()
        contiguous_CHW = image_CHW.contiguous()  # a Mat does not keep a reference to it
        extractor.input("input", ncnn.Mat(contiguous_CHW.numpy()).clone())
        return extractor

    def _extract(self, extractor: Any, name: str) -> Tensor:
        status, blob = extractor.extract(name)
        if status:
            raise DmaskError(f"'{self._path}' does not run in ncnn: status {status}", "export it again")
        return torch.from_numpy(np.array(blob))

    def names(self) -> EndNames:
        """The blobs of Input layers, and the blobs that no layer uses."""
        taken = {name for layer in self._layers for name in layer.inputs}
        inputs = (name for layer in self._layers if layer.kind == "Input" for name in layer.outputs)
        outputs = (name for layer in self._layers for name in layer.outputs if name not in taken)
        return EndNames(tuple(inputs), tuple(outputs))

    def unused_bytes(self) -> int:
        """The bytes of files that are not part of the format; the others are checked when they are read."""
        return sum(
            p.lstat().st_size for p in self._path.rglob("*") if p.relative_to(self._path).as_posix() not in FILES
        )

    def counts(self) -> Counts:
        """Multiply-adds and weights of convolutions and inner products, from shapes that the reader infers."""
        params = [layer.num_weights for layer in self._layers]
        pixels = [prod(self._shapes[layer.outputs[0]][1:]) for layer in self._layers]
        return Counts(sum(size * number for size, number in zip(params, pixels, strict=True)), sum(params))

    def stray_operations(self) -> dict[str, int]:
        """Layers that only move or cast data; none of these is ever necessary."""
        kinds = [layer.kind for layer in self._layers]
        return {kind: kinds.count(kind) for kind in ("Permute", "Cast", "Packing")}

    def metadata(self) -> dict[str, str]:
        """The content of ``description.json`` and of ``labels.txt``."""
        return dict(self._metadata)

    def intermediates(self, image: Tensor) -> Iterator[Tensor]:
        """Every blob for one image (1, C, H, W), as (1, ...), in the order of execution."""
        extractor = self._extractor(image[0])
        for layer in self._layers:
            for name in layer.outputs:
                yield self._extract(extractor, name)[None]


def _strings(content: Any) -> dict[str, str]:
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError("description.json must be a mapping of strings")
    return content


def load_net(path: Path) -> Any:
    """The model of a folder in ncnn, on one thread and in float32.

    Raises:
        ValueError: if ncnn cannot read a file.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.lightmode = False  # keeps blobs, which `intermediates` needs
    for option in OFF:
        setattr(net.opt, option, False)
    for kind, load in (("param", net.load_param), ("bin", net.load_model)):
        status = load(str(path / f"model.{kind}"))
        if status:
            raise ValueError(f"ncnn could not read model.{kind}: status {status}")
    return net
