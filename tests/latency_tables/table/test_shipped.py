from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.costs.latency import Latency
from dmask_mobile.records.space import load_space
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.table.rows import FailureRow
from latency_tables.table.shipped import shipped_tables, table_path
from latency_tables.table.table import LatencyTable


def test_a_path_that_exists_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, path in shipped_tables().items():
        assert table_path(Path(name)) == path
        Path(name).write_text("")
        assert table_path(Path(name)) == Path(name)
    assert table_path(Path("nothing")) == Path("nothing")


@pytest.mark.parametrize("name", shipped_tables())
def test_shipped_tables_are_sound(name: str) -> None:
    table = LatencyTable.read(Path(name))
    assert all(isinstance(row, FailureRow) or min(row.wall_ms) > 0 for row in table.rows)
    assert table.failures == {}
    model = LatencyModel(table)
    assert model.corrections.error < 0.05
    space = load_space(name.split("-")[-1])
    latency = Latency(model)
    assert latency.estimate(space.child(space.smallest())).value < latency.estimate(space.child(space.largest())).value


def test_a_real_table_ships() -> None:
    assert shipped_tables()
