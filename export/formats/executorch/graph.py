"""The graph of ExecuTorch's XNNPACK delegate in a .pte file, read by the schema that is part of ExecuTorch."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import as_file, files
from math import prod
from typing import Any

from dmask_mobile.temporary import temporary_folder
from export.formats.protocols import Counts

COUNTED = ("XNNConv2d", "XNNDepthwiseConv2d", "XNNFullyConnected")
QUANTIZED = ("xnn_datatype_qcint8", "xnn_datatype_qint8")
TO_NHWC, FROM_NHWC = [0, 2, 3, 1], [0, 3, 1, 2]

Node = tuple[str, dict[str, Any]]  # type, fields


class XnnGraph:
    """One delegate's graph.

    Raises:
        ValueError: for bytes that are not such a graph.
        subprocess.CalledProcessError: if they do not fit the schema.
    """

    def __init__(self, payload: bytes) -> None:
        self._content = read_graph(payload)

    def counts(self) -> Counts:
        """Multiply-adds and weights of convolutions and linear layers."""
        macs = params = 0
        for kind, node in self._nodes():
            if kind in COUNTED:
                size = prod(self._tensor(node["filter_id"])["dims"])
                pixels = prod(self._tensor(node["output_id"])["dims"][1:-1])  # of (N, H, W, C) or (N, C)
                params += size
                macs += size * pixels
        return Counts(macs, params)

    def stray_operations(self) -> dict[str, int]:
        """Transposes except one to NHWC and one back; repeated conversions; float layers if other layers are int8."""
        transposes = [node["perm"] for kind, node in self._nodes() if kind == "XNNStaticTranspose"]
        conversions = [node for kind, node in self._nodes() if kind == "XNNConvert"]
        converted = {node["output_id"] for node in conversions}
        layers = [
            (kind, self._tensor(node["filter_id"])["datatype"]) for kind, node in self._nodes() if kind in COUNTED
        ]
        found = {
            "XNNStaticTranspose": len(transposes) - (TO_NHWC in transposes) - (FROM_NHWC in transposes),
            "XNNConvert": sum(node["input_id"] in converted for node in conversions),
        }
        if any(datatype in QUANTIZED for _, datatype in layers):
            for kind in COUNTED:
                found[f"float {kind}"] = sum(k == kind and datatype not in QUANTIZED for k, datatype in layers)
        return found

    def _nodes(self) -> Iterator[Node]:
        for node in self._content["xnodes"]:
            yield node["xnode_union_type"], node["xnode_union"]

    def _tensor(self, number: int) -> dict[str, Any]:
        value = self._content["xvalues"][number]["xvalue_union"]
        tensor: dict[str, Any] = value.get("tensor_value", value)  # a quantized value has a tensor and its scales
        return tensor


def graph_at(payload: bytes) -> slice:
    """Where the flatbuffer of the graph lies in a delegate's data.

    Raises:
        ValueError: for bytes that are not such data.
    """
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    return slice(header.flatbuffer_offset, header.flatbuffer_offset + header.flatbuffer_size)


def read_graph(payload: bytes) -> dict[str, Any]:
    """The graph in a delegate's data as JSON, made by the flatc program that is part of ExecuTorch.

    Raises:
        ValueError: for bytes that are not such data.
        subprocess.CalledProcessError: if they do not fit the schema.
    """
    with (
        as_file(files("executorch.data.bin").joinpath("flatc")) as flatc,
        as_file(files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs")) as schema,
        temporary_folder() as folder,
    ):
        binary, text = folder / "graph.bin", folder / "graph.json"
        binary.write_bytes(payload[graph_at(payload)])
        options = ["--json", "--strict-json", "--defaults-json", "--raw-binary", "-o", str(folder)]
        subprocess.run([str(flatc), *options, str(schema), "--", str(binary)], check=True, capture_output=True)
        # flatc writes the bounds of an open clamp as inf, but Python reads Infinity
        content: dict[str, Any] = json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", text.read_text(encoding="utf-8")))
    return content
