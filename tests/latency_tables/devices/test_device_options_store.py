"""A table names its device; how it is reached is the user's own knowledge."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from latency_tables.devices.device_options_store import load_device_options, save_device_options
from latency_tables.devices.options import DeviceOptions
from latency_tables.profiling.setup import setup_of
from latency_tables.profiling.table_probe import check_drift
from latency_tables.table.table import LatencyTable
from tests.latency_tables.factory import edit_head, local_head, write_table


def test_what_was_measured_with_is_found_again() -> None:
    head = local_head().model_copy(update={"created": "once", "reached_at": "ssh:pi"})
    options = DeviceOptions(at="ssh:pi", python="venv/bin/python", cores=(2, 3))
    save_device_options(head, options)
    assert load_device_options(head, "t") == options
    assert load_device_options(head, "t", "ssh:other") == options.model_copy(update={"at": "ssh:other"})
    with pytest.raises(
        DmaskError, match="t was measured on 'ssh:pi', but you have not measured into this table on that device"
    ):
        load_device_options(head.model_copy(update={"created": "twice"}), "t")


def test_this_machine_needs_no_knowledge() -> None:
    head = local_head().model_copy(update={"created": "never remembered", "pinned_cores": (1,)})
    assert load_device_options(head, "t") == DeviceOptions(cores=(1,))
    assert load_device_options(head, "t", "adb:A") == DeviceOptions(at="adb:A", cores=(1,))


def test_a_foreign_table_runs_nothing_and_calls_nobody(tmp_path: Path) -> None:
    table, trace = write_table(tmp_path / "t.jsonl", load_space("demo")), tmp_path / "trace"
    edit_head(table, reached_at="ssh:attacker")
    with pytest.raises(
        DmaskError, match="but you have not measured into this table on that device; if you trust that device, profile"
    ):
        check_drift(LatencyTable.read(table))
    edit_head(table, reached_at="local", reached={"python": f"sh -c 'touch {trace}'"})
    with pytest.raises(DmaskError, match="unknown key 'reached'"):
        setup_of(LatencyTable.read(table))
    assert not trace.exists()


def test_words_that_do_not_end_are_refused() -> None:
    with pytest.raises(ValueError, match="No closing quotation"):
        DeviceOptions(python="'python")
