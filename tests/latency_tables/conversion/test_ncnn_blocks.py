"""ncnn models of blocks made from one conversion for each structure are those of the official converter, pnnx."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dmask_mobile.nets.blocks import build_block
from dmask_mobile.records.block import BlockSpec
from export.formats.ncnn.graph import FP16_TAG, FP32_TAG, read_layers
from export.formats.ncnn.reader import load_net
from export.formats.ncnn.writer import to_ncnn
from latency_tables.conversion import ncnn_blocks
from latency_tables.conversion.ncnn_blocks import converted_by_structure
from latency_tables.table.rows import BlockAt
from tests.latency_tables.conversion.random_blocks import FEW, OTHER_KINDS, PARTS, random_blocks

SEVERAL = {"pooled_inverted_residual"}  # kinds of blocks that pnnx ends with a Reshape, which is not supported


def output(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    import ncnn

    net, image = load_net(folder), np.random.default_rng(0).random(shape, dtype=np.float32)
    extractor = net.create_extractor()  # it does not keep the network alive, nor a Mat its array
    extractor.input("input", ncnn.Mat(image).clone())
    status, found = extractor.extract("output")
    assert status == 0
    return np.array(found)


def check_equal(block: BlockSpec, in_size: int, folder: Path, *, fp16: bool = False) -> None:
    """The same layers and the same weights; those in float16 may be rounded up instead of down."""
    module, shape = build_block(block).eval(), (block.in_width, in_size, in_size)
    ours, official = folder / "ours", folder / "official"
    official.mkdir(parents=True)
    to_ncnn(module, (1, *shape), official, fp16=fp16)
    made = converted_by_structure(block, in_size, module, fp16=fp16)
    assert made is not None
    zipfile.ZipFile(io.BytesIO(made)).extractall(ours)
    assert (ours / "model.param").read_text() == (official / "model.param").read_text()
    if fp16:
        bits = (np.fromfile(path / "model.bin", np.int16).astype(int) for path in (ours, official))
        assert np.abs(np.subtract(*bits)).max() <= 1
    else:
        assert (ours / "model.bin").read_bytes() == (official / "model.bin").read_bytes()
    tolerance = 1e-3 if fp16 else 1e-6
    assert output(ours, shape) == pytest.approx(output(official, shape), rel=tolerance, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "located",
    [*FEW, *(at for at in OTHER_KINDS if at[0].kind not in SEVERAL)],
    ids=lambda located: located[0].describe(),
)
def test_a_model_by_structure_is_that_of_the_official_converter(located: BlockAt, tmp_path: Path) -> None:
    check_equal(*located, tmp_path)


@pytest.mark.slow
def test_a_model_in_half_precision(tmp_path: Path) -> None:
    check_equal(*FEW[0], tmp_path, fp16=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_random_blocks(part: int, tmp_path: Path) -> None:
    for number, located in enumerate(random_blocks(part, 10)):
        check_equal(*located, tmp_path / str(number))


def test_an_unknown_layer_is_left_to_the_converter() -> None:
    (block, in_size), *_ = (at for at in OTHER_KINDS if at[0].kind in SEVERAL)
    assert converted_by_structure(block, in_size, build_block(block).eval()) is None


def test_a_size_in_an_unknown_place_is_left_to_the_converter() -> None:
    layers = read_layers("7767517\n2 2\nInput input 0 1 input 0=18 1=18 2=29\nPadding pad 1 1 input output 0=18\n")
    with pytest.raises(ncnn_blocks.NotATemplateError, match="Padding 'pad'"):
        ncnn_blocks._check_sizes(layers, {18: "in_size"})


def test_a_weight_that_is_no_parameter_is_left_to_the_converter() -> None:
    layers = read_layers("7767517\n2 2\nInput input 0 1 input\nInnerProduct fc 1 1 input output 0=2 1=0 2=6\n")
    weight = np.arange(6, dtype=np.float32)
    content = FP32_TAG.to_bytes(4, "little") + weight.tobytes()
    found = list(ncnn_blocks._weights(layers, content, {"fc.weight": weight.reshape(2, 3)}))
    assert found == [None, ncnn_blocks.Weights("fc.weight", "", FP32_TAG)]
    with pytest.raises(ncnn_blocks.NotATemplateError, match="a weight with 6 values"):
        list(ncnn_blocks._weights(layers, content, {"fc.weight": weight + 1}))
    half = FP16_TAG.to_bytes(4, "little") + weight.astype(np.float16).tobytes()
    with pytest.raises(ncnn_blocks.NotATemplateError, match=r"the rest of model\.bin"):
        list(ncnn_blocks._weights(layers, half + b"1", {"fc.weight": weight}))
