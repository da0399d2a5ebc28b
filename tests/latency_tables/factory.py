"""A small table with latencies from a formula: macs in nanoseconds plus 1 us a block."""

from __future__ import annotations

import json
from pathlib import Path

from dmask_mobile.costs.counts import Macs
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from latency_tables.devices.local import LocalDevice
from latency_tables.profiling.plan import blocks_of, networks_of
from latency_tables.profiling.setup import Setup
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.table.rows import BlockRow, NetworkRow, TableHead
from latency_tables.table.writer import TableWriter

AT = "2026-01-01T00:00:00+00:00"
OFFSET_MS, SCALE = 0.02, 0.9


def local_head() -> TableHead:
    return Setup((LocalDevice(),), OnnxRuntime()).head()


def block_ms(block: object, in_size: int) -> float:
    return Macs().block_cost(block, in_size) / 1e6 + 0.001  # type: ignore[arg-type]


def network_ms(child: ChildSpec) -> float:
    return OFFSET_MS + SCALE * sum(block_ms(b, size) for b, size in child.located_blocks() if b.kind != "skip")


def write_table(
    path: Path, space: SearchSpace, head: TableHead | None = None, networks: int = 4, every: int = 1
) -> Path:
    """``every``: only each so-many-th inverted residual is in the table."""
    blocks = blocks_of(space)
    kept = [b for b in blocks if b[0].kind != "inverted_residual"]
    kept += [b for b in blocks if b[0].kind == "inverted_residual"][::every]
    with TableWriter(path, head or local_head()) as writer:
        for block, in_size in kept:
            ms = block_ms(block, in_size)
            writer.add(BlockRow(block=block, in_size=in_size, round=0, at=AT, wall_ms=(ms,), cpu_ms=(ms,)))
        for child in networks_of(space)[:networks]:
            ms = network_ms(child)
            writer.add(NetworkRow(child=child, round=0, at=AT, wall_ms=(ms,), cpu_ms=(ms,)))
    return path


def edit_head(path: Path, **changes: object) -> None:
    lines = path.read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | changes)
    path.write_text("\n".join(lines) + "\n")
