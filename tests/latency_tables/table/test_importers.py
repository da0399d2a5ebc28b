"""Tables by others, right and wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from latency_tables.table.importers import FORMATS, read_foreign, write_imported
from latency_tables.table.table import LatencyTable
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


def test_the_same_key_twice_is_reported(tmp_path: Path) -> None:
    text = "Logits-input:7x7x8-output:10: {mean: 1.0}\n" + "Logits-input:7x7x8-output:10: {mean: 9.0}\n"
    imported = read_foreign(write(tmp_path / "p.yaml", text), "proxylessnas")
    assert [row.wall_ms for row in imported.rows] == [(1.0,)]
    assert imported.findings == ("Logits-input:7x7x8-output:10: a second entry for this block",)


def test_mobile_vision(tmp_path: Path) -> None:
    line = {
        "op_type": "conv2d", "op_args": {"in_channels": 16, "out_channels": 32, "kernel_size": 3, "stride": 2},
        "input_shapes": [[1, 16, 56, 56]], "dtype": "float", "device": "x", "runtime_us_p50": 1250.0,
    }  # fmt: skip
    (row,) = read_foreign(write(tmp_path / "m.jsonl", json.dumps(line) + "\n"), "mobile-vision").rows
    assert row.block.describe() == "conv k3 s2 16->32 relu"
    assert row.wall_ms == (1.25,)


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
        ("Pool-input:8x8x8-output:4x4x8: {mean: 1.0}", "no block of ours is a 'Pool'"),
        ("Conv_1-input:224x224x3-output:112x112x32-kernel:3: {mean: 1.5}", "a second entry for this block"),
    ],
)  # fmt: skip
def test_wrong_entries_are_reported_and_left_out(entry: str, finding: str, tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "p.yaml", PROXYLESS + entry + "\n"), "proxylessnas")
    assert len(imported.rows) == 5
    (found,) = imported.findings
    assert finding in found
    assert found.startswith(entry.split(": {")[0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("proxylessnas", "[1, 2]", "expected one mapping with an entry a block"),
        ("proxylessnas", "a: [", "cannot read .* as proxylessnas"),
        ("mobile-vision", "{", "cannot read .* as mobile-vision"),
        ("proxylessnas", "Pool-input:8x8x8-output:4x4x8: {mean: 1.0}", "holds no usable entry; the first: Pool"),
        ("nn-meter", "", "no table format 'nn-meter'; choose one of proxylessnas, once-for-all, mobile-vision"),
    ],
)
def test_files_that_are_no_such_table(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match=message):
        read_foreign(write(tmp_path / "x", text), name)


def test_an_imported_table_reads_as_ours(tmp_path: Path) -> None:
    imported = read_foreign(write(tmp_path / "p.yaml", PROXYLESS), "proxylessnas")
    head = local_head().model_copy(update={"device": "Pixel 1"})
    write_imported(imported, head, tmp_path / "t.jsonl")
    table = LatencyTable.read(tmp_path / "t.jsonl")
    assert table.head.device == "Pixel 1"
    assert len(table.blocks) == 5
    with pytest.raises(DmaskError, match="exists"):
        write_imported(imported, head, tmp_path / "t.jsonl")


def test_every_format_is_tested() -> None:
    assert set(FORMATS) == {"proxylessnas", "once-for-all", "mobile-vision"}
