"""TensorFlow Lite's metadata in a LiteRT file, for Android's tools, for people, and for our own reader.

A flatbuffer ``TFLITE_METADATA`` (tflite-support's metadata_schema.fbs 1.0.0) describes the input and the output.
``labels.txt`` is an entry of a zip archive after the end of the model, as MediaPipe and Android Studio expect. Our own
strings are JSON in the model's metadata entry ``dmask``. No installed package contains Python classes for the schema,
so the few tables are written by hand, with each field by its number in the schema.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

import numpy as np

from dmask_mobile.records.artifact import PIXEL_RANGE, ModelDescription

STANDARD_ENTRY, OWN_ENTRY, LABELS_FILE = "TFLITE_METADATA", "dmask", "labels.txt"
DIMENSIONS = {"N": "batch", "C": "channel", "H": "height", "W": "width"}
# ModelMetadata's strings, by field number.
MODEL_STRINGS = {0: "name", 1: "description", 4: "author", 5: "license"}
# Members of unions and enumerations, by their numbers in the schema.
IMAGE_PROPERTIES, FEATURE_PROPERTIES, NORMALIZATION, RGB, TENSOR_AXIS_LABELS = 2, 1, 1, 1, 2

Table = dict[int, Any]  # field number -> string, number (one byte), table, list of tables or strings, float array


def described(content: bytes, description: ModelDescription) -> bytes:
    """The LiteRT file with metadata and labels, tensors named ``input`` and ``output``, and short names inside."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    _rename(model)
    model.description = _title(description)
    entries = {
        OWN_ENTRY: json.dumps(description.to_metadata(), ensure_ascii=False).encode(),
        STANDARD_ENTRY: _standard_metadata(description),
    }
    for name, data in entries.items():
        model.metadata.append(schema.MetadataT(name, len(model.buffers)))
        model.buffers.append(schema.BufferT(np.frombuffer(data, np.uint8)))
    return packed(model, "\n".join(description.class_names).encode())


def packed(model: Any, labels: bytes) -> bytes:
    """The file with the flatbuffer of `ModelT`, followed by an archive with the labels.

    All data is aligned to 16 bytes, which the format's schema requires but its Python writer does not do.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    class AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # the base must load with its package
        def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated code's name
            if self.data is not None:
                builder.Prep(16, len(self.data))
            return super().Pack(builder)

    copy = schema.ModelT()
    vars(copy).update(vars(model))
    copy.buffers = [
        AlignedBuffer(None if buffer.data is None else np.frombuffer(bytes(buffer.data), np.uint8))
        for buffer in model.buffers
    ]
    file = io.BytesIO(bytes(flatbuffer_utils.convert_object_to_bytearray(copy)))
    with zipfile.ZipFile(file, "a") as archive:  # stored, not compressed: readers map it into memory
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), labels)
    return file.getvalue()


def read_metadata(content: bytes, model: Any) -> dict[str, str]:
    """Our strings, the strings of ``TFLITE_METADATA`` as ``tflite.NAME``, and the labels as ``labels.txt``.

    Args:
        content: the whole file.
        model: the `ModelT` of its flatbuffer.

    Raises:
        ValueError: if an entry or the labels are missing or damaged.
        zipfile.BadZipFile: if there is no zip archive after the model.
    """
    entries = {entry.name: model.buffers[entry.buffer].data for entry in model.metadata or []}
    missing = {STANDARD_ENTRY.encode(), OWN_ENTRY.encode()} - set(entries)
    if missing:
        raise ValueError(f"it has no metadata entry {sorted(missing)[0].decode()}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        labels = archive.read(LABELS_FILE).decode()
    standard = _strings(bytes(entries[STANDARD_ENTRY.encode()]), MODEL_STRINGS)
    own: dict[str, str] = json.loads(bytes(entries[OWN_ENTRY.encode()]))
    return {**own, **{f"tflite.{name}": text for name, text in standard.items()}, LABELS_FILE: labels}


def _rename(model: Any) -> None:
    """Names the input and the output in the graph and its signature, and shortens the other names.

    Otherwise names take half of a small file, because each contains the qualified class names of all enclosing modules.
    """
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    for tensor in graph.tensors:
        tensor.name = re.sub(rb"(?:\w+\.)+(?=\w)", b"", tensor.name)
    for places, named, name in (
        (graph.inputs, signature.inputs, "input"),
        (graph.outputs, signature.outputs, "output"),
    ):
        (place,), (entry,) = places, named
        graph.tensors[place].name = entry.name = name


def _title(description: ModelDescription) -> str:
    return f"{description.child.name}, {description.precision}, {description.child.resolution} px"


def _standard_metadata(description: ModelDescription) -> bytes:
    low, high = description.preprocessing.input_range
    normalization = {0: np.zeros(1, np.float32), 1: np.array([PIXEL_RANGE[1] / high], np.float32)}
    image: Table = {
        0: "input",
        1: f"image, RGB, float32, {low:g} to {high:g}; the graph normalizes it",
        2: [DIMENSIONS[axis] for axis in description.preprocessing.layout],
        3: {0: IMAGE_PROPERTIES, 1: {0: RGB}},
        # What an app must do to pixels of 0..255 before it passes them to the model: nothing, or divide by 255.
        4: [{0: NORMALIZATION, 1: normalization}],
        5: {0: np.array([high], np.float32), 1: np.array([low], np.float32)},
    }
    scores: Table = {
        0: "output",
        1: "probabilities" if description.output == "probabilities" else "logits (scores before softmax)",
        3: {0: FEATURE_PROPERTIES, 1: {}},
        6: [{0: LABELS_FILE, 1: "class names, one a line", 2: TENSOR_AXIS_LABELS}],
    }
    model: Table = {
        0: description.child.name,
        1: _title(description),
        3: [{2: [image], 3: [scores]}],
        4: description.author,
        5: description.license,
        7: "1.0.0",
    }
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, model), file_identifier=b"M001")
    return bytes(builder.Output())


def _write(builder: Any, value: Any) -> Any:
    """Appends a table, a list, a float array or a string to the flatbuffer and returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        offsets = [_write(builder, part) for part in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    parts = {slot: part if isinstance(part, int) else _write(builder, part) for slot, part in value.items()}
    builder.StartObject(max(parts, default=-1) + 1)
    for slot, part in parts.items():
        if isinstance(value[slot], int):
            builder.PrependUint8Slot(slot, part, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, part, 0)
    return builder.EndObject()


def _strings(content: bytes, fields: dict[int, str]) -> dict[str, str]:
    """The strings of the root table by the names of their fields."""
    from flatbuffers import encode, packer
    from flatbuffers.table import Table as Reader

    root = Reader(content, encode.Get(packer.uoffset, content, 0))
    places = {name: root.Offset(4 + 2 * slot) for slot, name in fields.items()}
    return {name: root.String(root.Pos + place).decode() for name, place in places.items() if place}
