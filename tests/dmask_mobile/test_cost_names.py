"""Costs by name, of several tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmask_mobile import api
from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import load_space
from tests.latency_tables.factory import SCALE, edit_head, network_ms, write_table

SPACE = load_space("demo")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tables")
    return [write_table(folder / f"{name}.jsonl", SPACE) for name in ("pixel", "watch")]


def test_every_cost_has_its_name(tables: list[Path]) -> None:
    counted = ["macs", "params", "weight_bytes", "peak_activation_bytes"]
    assert [cost.name for cost in api.all_costs()] == counted
    assert [cost.name for cost in api.all_costs(tables[:1])] == [*counted, "latency"]
    assert [cost.name for cost in api.all_costs(tables)] == [*counted, "latency@pixel", "latency@watch"]
    assert all(api.cost_model(cost.name, tables).name == cost.name for cost in api.all_costs(tables))


def test_a_latency_by_its_tables_name(tables: list[Path]) -> None:
    child = SPACE.child(SPACE.smallest())
    for name in ("latency", "latency@pixel"):
        assert api.cost_model(name, tables[:1]).estimate(child).value == pytest.approx(network_ms(child))
    assert SCALE != 1


def test_cost_tensors_that_came_beside_a_table_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = write_table(tmp_path / "sent" / "t.jsonl", SPACE)
    made = api.cost_model("latency", [table]).on(SPACE)
    (kept,) = (tmp_path / "cache" / "dmask-mobile" / "cost-tensors").iterdir()
    assert sorted(path.name for path in table.parent.iterdir() if path.suffix != ".lock") == ["t.jsonl"]
    with np.load(kept) as stored:
        forged = [10 * stored[name] for name in stored]
    kept.unlink()
    for folder in (table.parent, table.parent / ".dmask-cache"):
        folder.mkdir(exist_ok=True)
        np.savez_compressed(folder / kept.name, *forged)
    assert api.cost_model("latency", [table]).on(SPACE).digest() == made.digest()


def test_a_device_is_asked_only_when_it_is_to_be_checked(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.jsonl", SPACE)
    edit_head(table, device="Pixel 6")
    child = SPACE.child(SPACE.smallest())
    assert api.cost_model("latency", [table]).estimate(child).value == pytest.approx(network_ms(child))
    with pytest.raises(DmaskError, match="device of the table is 'Pixel 6'"):
        api.cost_model("latency", [table], check=True)


def test_an_emulators_table_is_taken_only_when_that_is_said(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.jsonl", SPACE)
    edit_head(table, emulated=True)
    with pytest.raises(DmaskError, match="was measured on an emulator: its times are meaningless"):
        api.cost_model("latency", [table])
    assert api.cost_model("latency", [table], emulated=True, check=True).name == "latency"  # it has no drift


def test_the_precision_of_the_network_is_that_of_its_tables(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.jsonl", SPACE)
    child = SPACE.child(SPACE.smallest())
    with pytest.raises(DmaskError, match="is a table for fp32, but the network will be exported in int8"):
        api.cost_model("latency", [table], precision="int8")
    edit_head(table, precision="int8")
    assert api.cost_model("latency", [table], precision="int8").estimate(child).value == pytest.approx(
        network_ms(child)
    )
    bytes_of = {p: api.cost_model("weight_bytes", precision=p).estimate(child).value for p in ("fp32", "int8")}
    assert bytes_of == {p: WeightBytes(p).estimate(child).value for p in ("fp32", "int8")}
    assert bytes_of["int8"] < bytes_of["fp32"] / 2


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("latency", 0, "a latency budget needs a latency table; give --table"),
        ("latency", 2, "'latency' must name one of the tables pixel, watch; give latency@pixel"),
        ("latency@phone", 2, "no table 'phone' for the budget latency@phone; .*the tables are pixel, watch"),
        ("latency@phone", 1, "no table 'phone'"),
    ],
)
def test_a_latency_without_its_table(name: str, count: int, message: str, tables: list[Path]) -> None:
    with pytest.raises(DmaskError, match=message):
        api.cost_model(name, tables[:count])


def test_two_tables_of_one_name(tables: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="two tables have the same name"):
        api.cost_model("latency@pixel", [tables[0], tmp_path / "pixel.jsonl"])


@pytest.mark.slow
def test_a_search_of_two_tables_keeps_both(tables: list[Path], tmp_path: Path) -> None:
    """Budgets of two tables and of the memory at once; the run keeps the tables."""
    from dmask_mobile.search.settings import SearchSettings

    costs = {cost.name: cost.on(SPACE) for cost in api.all_costs(tables)}
    limits = {"latency@pixel": 0.6, "latency@watch": 0.7, "peak_activation_bytes": 0.8}
    budgets = {}
    for name, place in limits.items():
        low, high = costs[name].reachable()
        budgets[name] = low + place * (high - low)
    settings = SearchSettings(epochs=1, warmup=0.0, min_gate_steps=1, batch_size=512, trials=1)
    run = tmp_path / "run"
    result = api.search(
        SPACE, "glyphs", budgets, run, tables=tables, settings=settings, samples=2, allow_drift=True
    ).search_result
    assert all(cost <= limit for cost, limit in zip(result.costs, budgets.values(), strict=True))
    assert sorted(path.name for path in (run / "search" / "tables").iterdir()) == ["pixel.jsonl", "watch.jsonl"]
    assert list((run / "search" / "tensorboard").glob("events.*"))
