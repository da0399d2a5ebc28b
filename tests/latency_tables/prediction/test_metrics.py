"""Memory and energy of whole networks, predicted from measured ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile import api
from dmask_mobile.costs.memory import PeakActivationBytes, WeightBytes
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import load_space
from latency_tables.devices import agent
from latency_tables.prediction.metrics import METRICS, MetricModel, fit_metric
from latency_tables.profiling.plan import networks_of
from latency_tables.table.rows import MetricRow, NoMetricRow
from latency_tables.table.table import LatencyTable
from latency_tables.table.writer import TableWriter
from tests.latency_tables.factory import AT, network_ms, write_table

SPACE = load_space("demo")
NETWORKS = networks_of(SPACE)[:8]
NO_COUNTER = "there is no counter"


def memory_bytes(child: ChildSpec) -> float:
    """Half a megabyte, 2.5 times the weights and 1.5 times the peak of activations."""
    return 5e5 + 2.5 * WeightBytes().estimate(child).value + 1.5 * PeakActivationBytes().estimate(child).value


def energy_mj(child: ChildSpec) -> float:
    """A tenth of a millijoule, and 3 W times the latency."""
    return 0.1 + 3 * network_ms(child)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_table(tmp_path_factory.mktemp("table") / "t.jsonl", SPACE)
    with TableWriter(path, LatencyTable.read(path).head) as writer:
        for child in NETWORKS:
            writer.add(MetricRow(at=AT, metric="memory", child=child, value=memory_bytes(child)))
            writer.add(MetricRow(at=AT, metric="energy", child=child, value=energy_mj(child)))
    return path


@pytest.mark.parametrize(("metric", "expected"), [("memory", memory_bytes), ("energy", energy_mj)])
def test_a_metric_is_predicted_by_its_formula(metric: str, expected: object, path: Path) -> None:
    model = MetricModel(LatencyTable.read(path), metric)
    assert model.fitted.error < 1e-3
    choice = SPACE.largest()
    child = SPACE.child(choice)
    assert model.estimate(child).value == pytest.approx(expected(child), rel=1e-3)  # type: ignore[operator]
    cost = model.on(SPACE)
    assert (cost.name, cost.unit) == (metric, {"memory": "bytes", "energy": "mJ"}[metric])
    assert cost.cost(choice) == pytest.approx(model.estimate(child).value)
    low, high = cost.reachable()
    assert low <= cost.cost(SPACE.smallest()) < cost.cost(choice) <= high * (1 + 1e-9)


def test_the_error_is_that_of_networks_left_out() -> None:
    """Of five equal networks, one is measured at double its value: the others predict half, and are off themselves."""
    assert fit_metric([(1.0,)] * 5, [1.0, 1.0, 1.0, 1.0, 2.0]).error > 0.1
    fitted = fit_metric([(1.0,), (2.0,), (3.0,), (5.0,)], [3.0, 5.0, 7.0, 11.0])
    assert fitted.error < 1e-6
    assert (fitted.constant, *fitted.coefficients) == pytest.approx((1, 2), rel=1e-5)


def test_budgets_name_metrics(path: Path, tmp_path: Path) -> None:
    assert {"latency", "memory", "energy"} <= {cost.name for cost in api.all_costs(path)}
    without = write_table(tmp_path / "old.jsonl", SPACE)
    assert [cost.name for cost in api.all_costs(without)][-1] == "latency"
    message = r"holds memory of 0 whole networks, at least 5 are needed; measure it: dmask profile SPACE -o .*old.jsonl"
    with pytest.raises(DmaskError, match=message):
        api.cost_model("memory", without)
    with pytest.raises(DmaskError, match="a memory budget needs a latency table"):
        api.cost_model("memory")
    with TableWriter(without, LatencyTable.read(without).head) as writer:
        writer.add(NoMetricRow(at=AT, metric="energy", reason=NO_COUNTER))
    message = f"energy is not available on the device of '.*old.jsonl': {NO_COUNTER}; leave out the budget for energy"
    with pytest.raises(DmaskError, match=message):
        api.cost_model("energy", without)


def test_the_agent_measures_every_metric() -> None:
    assert set(METRICS) == set(agent.METERS)
