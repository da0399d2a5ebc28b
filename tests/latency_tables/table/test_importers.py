"""Tables by others, right and wrong."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.block import Activation
from latency_tables.table.importers import FORMATS, Imported, read_foreign
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import write_new_table
from tests.latency_tables.factory import local_head

PROXYLESS = """
Conv-input:224x224x3-output:112x112x32: {count: 1000, mean: 1.5, var: 0.01}
expanded_conv-input:112x112x16-output:56x56x24-expand:6-kernel:5-stride:2-idskip:0: {count: 9, mean: 4.25, var: 0.02}
expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1: {count: 9, mean: 2.0, var: 0.02}
Conv_1-input:7x7x320-output:7x7x1280: {count: 9, mean: 0.75, var: 0.02}
Logits-input:7x7x1280-output:1000: {count: 9, mean: 0.5, var: 0.02}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_proxylessnas(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "p.yaml", PROXYLESS), "proxylessnas")
    assert imported.findings == ()
    found = {(row.block.describe(), row.in_size): row.wall_ms for row in imported.rows}
    assert found == {
        ("conv k3 s2 3->32 relu", 224): (1.5,),
        ("ir k5 s2 16->96->24 relu", 112): (4.25,),
        ("ir k3 s1 24->72->24 relu", 56): (2.0,),
        ("conv k1 s1 320->1280 relu", 7): (0.75,),
        ("head 1280->1000", 7): (0.5,),
    }
    assert [row.block.residual for row in imported.rows] == [False, False, True, False, False]


def test_once_for_all_gives_the_hidden_width(tmp_path: Path) -> None:
    key = "expanded_conv-input:28x28x40-output:28x28x40-expand:240-kernel:5-stride:1-idskip:1-se:1-hs:1"
    (row,) = read_foreign(write(tmp_path / "o.yaml", f"{key}: {{mean: 1.0}}"), "once-for-all").rows
    assert row.block.describe() == "ir k5 s1 40->240->40 se64 hswish"  # 60, made divisible by 8
    key = key.replace("expand:240", "expand:72")
    (row,) = read_foreign(write(tmp_path / "o.yaml", f"{key}: {{mean: 1.0}}"), "once-for-all").rows
    assert row.block.se_width == 24  # 18 would become 16, less than 90% of it


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_the_same_key_twice_is_refused(ending: str, tmp_path: Path) -> None:
    key = "Logits-input:7x7x8-output:10"
    text = f"{key}: {{mean: 1.0}}\n{key}: {{mean: 9.0}}\n"
    if ending == "json":
        text = f'{{"{key}": {{"mean": 1.0}}, "{key}": {{"mean": 9.0}}}}'
    with pytest.raises(DmaskError, match=f"key '{key}' appears twice"):
        read_foreign(write(tmp_path / f"p.{ending}", text), "proxylessnas")


# The first lines of tables as they were published: of Dynamic-OFA on a Jetson, of ProxylessNAS on a Pixel, of FBNet on
# a Galaxy S8.
DYNAMIC_OFA = """{
 "AvgPool2D-input:5x5x1152-output:1x1x1152": {"count": 491, "mean": 0.113740563393, "std": 0.0300814513532},
 "Conv-input:160x160x3-output:80x80x24": {"count": 498, "mean": 96.1561411619, "std": 24.6281673476},
 "Conv_1-input:5x5x192-output:5x5x1152": {"count": 498, "mean": 125.763460994, "std": 28.5902940093},
 "Logits-input:1x1x1536-output:1000": {"count": 499, "mean": 12.5327706337, "std": 16.4553474237},
 "expanded_conv-input:10x10x136-output:10x10x136-expand:408-kernel:3-stride:1-idskip:1-se:1-hs:1":
  {"count": 79, "mean": 83.7753301934351, "std": 21.807146800617407}
}
"""
PIXEL = """
Conv-input:224x224x3-output:112x112x32: {count: 949, mean: 4.397037934668071, var: 0.1562765530967112}
Conv_1-input:7x7x320-output:7x7x1280: {count: 949, mean: 6.28499578503688, var: 0.43429750694010927}
Logits-input:7x7x1280-output:1000: {count: 949, mean: 0.9348261327713382, var: 0.1500926595152672}
"""
CAFFE2_LINE = {
    "op_type": "Int8ConvRelu",
    "op_args": [
        'name: "kernel"\ni: 3\n', 'name: "order"\ns: "NHWC"\n', 'name: "pad"\ni: 1\n', 'name: "stride"\ni: 2\n'
    ],
    "input_shapes": [[1, 224, 224, 3], [32, 3, 3, 3], [32]], "input_dtypes": [4, 4, 2],
    "runtime_us_p50": 960.0, "device": "SM-G950U-7.0-24",
}  # fmt: skip
POINTWISE = CAFFE2_LINE | {
    "op_args": ['name: "kernel"\ni: 1\n', 'name: "order"\ns: "NHWC"\n', 'name: "stride"\ni: 1\n'],
    "input_shapes": [[1, 112, 112, 32], [32, 1, 1, 32], [32]],
    "runtime_us_p50": 674.0,
}
LAYOUT = {"op_type": "NCHW2NHWC", "op_args": [], "input_shapes": [[1, 3, 224, 224]], "runtime_us_p50": 276.0}
PYTORCH_LINE = {
    "op_type": "conv2d",
    "op_args": {"in_channels": 16, "out_channels": 32, "kernel_size": [3, 3], "stride": 2, "padding": 1},
    "input_shapes": [[1, 16, 56, 56]], "dtype": "float", "device": "x", "runtime_us_p50": 1250.0,
}  # fmt: skip


def arguments(*changes: str) -> list[str]:
    """The arguments of `CAFFE2_LINE`, with those of other names or values."""
    found = {text.split("\n")[0]: text for text in [*CAFFE2_LINE["op_args"], *changes]}  # type: ignore[misc]
    return list(found.values())


def read_lines(folder: Path, *lines: object, activation: Activation | None = None) -> Imported:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return read_foreign(write(folder / "m.jsonl", text), "mobile-vision", activation)


def test_a_published_table_of_proxylessnas(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "p.yaml", PIXEL), "proxylessnas")
    assert [(row.block.describe(), row.in_size) for row in imported.rows] == [
        ("conv k3 s2 3->32 relu", 224),
        ("conv k1 s1 320->1280 relu", 7),
        ("head 1280->1000", 7),
    ]
    assert (imported.findings, imported.precision) == ((), "fp32")


def test_a_published_table_of_once_for_all_in_json(tmp_path: Path) -> None:
    path = write(tmp_path / "o.json", DYNAMIC_OFA)
    imported = read_foreign(path, "once-for-all", "hswish")
    assert [row.block.describe() for row in imported.rows] == [
        "conv k3 s2 3->24 hswish",
        "conv k1 s1 192->1152 hswish",
        "head 1536->1000",
        "ir k3 s1 136->408->136 se104 hswish",
    ]
    assert imported.findings == ("AvgPool2D-input:5x5x1152-output:1x1x1152: no block corresponds to a 'AvgPool2D'",)
    untold = read_foreign(path, "once-for-all")
    assert [finding.split(": ", 1)[1] for finding in untold.findings[1:]] == [
        "its activation is not in the file: give it with --activation"
    ] * 2


def test_a_hidden_width_taken_for_a_ratio_is_refused_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=r"'expand:408' of 136 channels is a hidden width.*: give it as once-for-all"):
        read_foreign(write(tmp_path / "o.json", DYNAMIC_OFA), "proxylessnas")
    key = "expanded_conv-input:28x28x40-output:28x28x40-expand:4-kernel:5-stride:1-idskip:1"
    with pytest.raises(DmaskError, match=r"'expand:4' of 40 channels is an expansion ratio.*: give it as proxylessnas"):
        read_foreign(write(tmp_path / "p.yaml", f"{key}: {{mean: 1.0}}"), "once-for-all")
    one_of_three = PROXYLESS + key.replace("expand:4", "expand:240") + ": {mean: 1.0}\n"
    imported = read_foreign(write(tmp_path / "p.yaml", one_of_three), "proxylessnas")
    assert len(imported.rows) == 5
    assert imported.findings[0].endswith("expansion ratio 240: a hidden width, as in once-for-all")


def test_the_published_table_of_fbnet(tmp_path: Path) -> None:
    imported = read_lines(tmp_path, LAYOUT, CAFFE2_LINE, POINTWISE)
    assert {(row.block.describe(), row.in_size): row.wall_ms for row in imported.rows} == {
        ("conv k3 s2 3->32 relu", 224): (0.96,),
        ("conv k1 s1 32->32 relu", 112): (0.674,),
    }
    assert imported.findings == ("line 1: operator 'NCHW2NHWC' corresponds to no block",)
    assert imported.precision == "int8"


def test_caffe2_in_its_own_order(tmp_path: Path) -> None:
    line = CAFFE2_LINE | {
        "op_type": "ConvRelu",
        "op_args": ['name: "kernels"\nints: 5\nints: 5\n', *(f'name: "pad_{side}"\ni: 2\n' for side in "tlbr")],
        "input_shapes": [[1, 16, 8, 8], [24, 16, 5, 5], [24]],
    }
    imported = read_lines(tmp_path, line)
    assert [(row.block.describe(), row.in_size) for row in imported.rows] == [("conv k5 s1 16->24 relu", 8)]
    assert imported.precision == "fp32"


def test_the_activation_of_a_bare_convolution_has_to_be_told(tmp_path: Path) -> None:
    (row,) = read_lines(tmp_path, PYTORCH_LINE, activation="hswish").rows
    assert row.block.describe() == "conv k3 s2 16->32 hswish"
    assert row.wall_ms == (1.25,)
    with pytest.raises(DmaskError, match="its activation is not in the file: give it with --activation"):
        read_lines(tmp_path, PYTORCH_LINE)


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        (CAFFE2_LINE | {"op_args": arguments('name: "pad"\ni: 0\n')}, "padding 0: blocks with kernel 3 have 1"),
        (CAFFE2_LINE | {"op_args": arguments('name: "dilation"\ni: 2\n')}, "dilation 2: blocks have 1"),
        (CAFFE2_LINE | {"op_args": arguments('name: "kernel"\ni: 5\n')}, "kernel 5, but the weights have 3x3"),
        (CAFFE2_LINE | {"op_args": arguments('name: "stride_h"\ni: 1\n')}, "stride differs by direction: [1, 2]"),
        (CAFFE2_LINE | {"op_args": arguments('name: "group"\ni: 3\n')}, "3 channels, but the weights have 3 in 3"),
        (CAFFE2_LINE | {"op_args": arguments('name: "order"\ns: "CHWN"\n')}, "order ['CHWN'] is neither NHWC nor NCHW"),
        (CAFFE2_LINE | {"op_args": arguments('name: "legacy_pad"\ni: 3\n')}, "not given in pixels (legacy_pad)"),
        (CAFFE2_LINE | {"op_args": ["kernel 3"]}, "an argument without a name: 'kernel 3'"),
        (CAFFE2_LINE | {"op_args": [3]}, "incomplete: TypeError"),
        (CAFFE2_LINE | {"input_shapes": [[1, 224, 224, 3]]}, "the shapes of input and weights are needed"),
        (CAFFE2_LINE | {"input_shapes": [[1, 224, 112, 3], [32, 3, 3, 3]]}, "batch 1 and a square map are needed"),
        (CAFFE2_LINE | {"op_type": "Int8Conv"}, "a convolution without an activation corresponds to no block"),
        (CAFFE2_LINE | {"op_type": "Int8FC"}, "operator 'Int8FC' corresponds to no block"),
        (CAFFE2_LINE | {"op_type": ["x"] * 10**6}, "operator '['x', "),
        (CAFFE2_LINE | {"device": "Pixel"}, "'Pixel', but that of the first usable entry is 'SM-G950U-7.0-24'"),
        (CAFFE2_LINE | {"op_type": "ConvRelu"}, "'fp32', but that of the first usable entry is 'int8'"),
        (CAFFE2_LINE | {"runtime_us_p50": -5.0}, "a latency must be positive, got -0.005 ms"),
        (CAFFE2_LINE | {"runtime_us_p50": "5"}, "a latency must be a number, got '5'"),
        (CAFFE2_LINE | {"runtime_us_p50": 1e300}, "less than or equal to 10000000"),
        (PYTORCH_LINE | {"op_args": {"in_channels": 16, "out_channels": 8, "kernel_size": 3}}, "padding 0: blocks"),
        (PYTORCH_LINE | {"op_args": PYTORCH_LINE["op_args"] | {"dilation": 2}}, "dilation 2"),  # type: ignore[operator]
        (PYTORCH_LINE | {"op_args": PYTORCH_LINE["op_args"] | {"groups": 16}}, "16 groups"),  # type: ignore[operator]
        (PYTORCH_LINE | {"op_args": PYTORCH_LINE["op_args"] | {"stride": [1, 2]}}, "stride must be one integer"),  # type: ignore[operator]
        (PYTORCH_LINE | {"dtype": "bfloat16"}, "dtype 'bfloat16' is not supported"),
        (POINTWISE, "a second entry for this block"),
        ([1], "it must be an object with the keys of an operator"),
    ],
)  # fmt: skip
def test_wrong_operators_are_reported_and_left_out(line: object, finding: str, tmp_path: Path) -> None:
    imported = read_lines(tmp_path, POINTWISE, line)
    assert len(imported.rows) == 1
    (found,) = imported.findings
    assert finding in found
    assert len(found) < 400


@pytest.mark.parametrize(
    ("entry", "finding"),
    [
        ("Conv-input:8x8x3-output:4x4x8: {mean: -1.0}", "a latency must be positive, got -1 ms"),
        ("Conv-input:8x8x3-output:4x4x8: {mean: .nan}", "a latency must be a number, got nan"),
        ("Conv-input:8x8x3-output:4x4x8: {mean: fast}", "a latency must be a number, got 'fast'"),
        ("Conv-input:8x8x3-output:4x4x8: {var: 1.0}", "incomplete: KeyError 'mean'"),
        ("Conv-input:8x6x3-output:4x4x8: {mean: 1.0}", "input 8x6 is not square"),
        ("expanded_conv-input:8x8x8-output:8x8x8-expand:2-kernel:3-stride:2-idskip:0: {mean: 1.0}",
         "stride 2 on 8 pixels gives 4, not 8"),
        ("expanded_conv-input:8x8x8-output:8x8x8-expand:2-kernel:4-stride:1-idskip:0: {mean: 1.0}",
         "kernel must be odd, got 4"),
        ("Conv-input:8x8x3-output:0x0x8: {mean: 1.0}", "incomplete: ZeroDivisionError"),
        ("Conv-input:8x8x3-output:4x4x8: {mean: 1.0e+300}", "less than or equal to 10000000, got 1e+300"),
        ("Conv-input:8x8x3-output:4x4x8: {mean: 1.0, count: 0}", "it was measured 0 times"),
        ("Conv-input:8x8x3-output:4x4x8: 3", "it must be a mapping with 'mean', got 3"),
        ("Conv-input:8x8x3-output:4x2x8: {mean: 1.0}", "output 4x2 is not square"),
        ("Conv-input:8x8x3-output:4x4x999999999: {mean: 1.0}", "less than or equal to 65536, got 999999999"),
        ("Conv_1-input:8x8x3-output:4x4x8: {mean: 1.0}", "a 1x1 convolution has stride 1, and its key names no other"),
        ("Pool-input:8x8x8-output:4x4x8: {mean: 1.0}", "no block corresponds to a 'Pool'"),
        ("Conv_1-input:224x224x3-output:112x112x32-kernel:3: {mean: 1.5}", "a second entry for this block"),
    ],
)  # fmt: skip
def test_wrong_entries_are_reported_and_left_out(entry: str, finding: str, tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "p.yaml", PROXYLESS + entry + "\n"), "proxylessnas")
    assert len(imported.rows) == 5
    (found,) = imported.findings
    assert finding in found
    assert found.startswith(entry.split(": ")[0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("proxylessnas", "[1, 2]", "it must be one mapping with an entry for each block"),
        ("proxylessnas", "a: [", "cannot read .* as proxylessnas"),
        (
            "mobile-vision",
            "{",
            r"as mobile-vision: line 1 is not JSON \(one object a line is",
        ),
        ("mobile-vision", PROXYLESS, "its entries are blocks, as in a table of proxylessnas or once-for-all"),
        ("proxylessnas", json.dumps(CAFFE2_LINE), "its entries are operators, as in a table of mobile-vision"),
        ("proxylessnas", "{" * 100_000, "nested too deeply|not JSON|Expecting"),
        ("proxylessnas", "a: &a [1]\nb: [*a, *a]\n", "no usable entry"),
        (
            "proxylessnas",
            "Pool-input:8x8x8-output:4x4x8: {mean: 1.0}",
            "contains no usable entry; the first problem: Pool",
        ),
        ("nn-meter", "", "no table format 'nn-meter'; choose one of proxylessnas, once-for-all, mobile-vision"),
    ],
)
def test_files_that_are_no_such_table(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=message):
        read_foreign(write(tmp_path / "x", text), name)


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_compressed_files_are_named(pack: Callable[[bytes], bytes], name: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml.gz").write_bytes(pack(PROXYLESS.encode()))
    for file_format in FORMATS:
        with pytest.raises(DmaskError, match=rf"it is compressed \({name}\): unpack it first"):
            read_foreign(tmp_path / "p.yaml.gz", file_format)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for file_format in FORMATS:
        for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
            with pytest.raises(DmaskError, match="is not a regular file"):
                read_foreign(path, file_format)


def test_an_imported_table_reads_as_ours(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "p.yaml", PROXYLESS), "proxylessnas")
    head = local_head().model_copy(update={"device": "Pixel 1"})
    write_new_table(tmp_path / "t.jsonl", head, imported.rows)
    table = LatencyTable.read(tmp_path / "t.jsonl")
    assert table.head.device == "Pixel 1"
    assert len(table.blocks) == 5
    with pytest.raises(DmaskError, match="exists"):
        write_new_table(tmp_path / "t.jsonl", head, imported.rows)


def test_every_format_is_tested() -> None:
    assert set(FORMATS) == {"proxylessnas", "once-for-all", "mobile-vision"}
