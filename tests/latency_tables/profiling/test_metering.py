"""Metrics of whole networks beside latency, measured on this machine and on devices that do not report them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from dmask_mobile.records.artifact import hash_path
from dmask_mobile.records.space import SearchSpace
from latency_tables.devices import agent
from latency_tables.devices.device import NO_METER, MeasuringError, metered
from latency_tables.devices.local import LocalDevice
from latency_tables.profiling.metering import meter_models, warm_up_model
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.setup import Setup
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from tests.latency_tables.profiling.test_measuring import QUICK, ScriptedPhone, ScriptedSession

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")
RUNTIME = OnnxRuntime()
MEGABYTES = 24


def big_model() -> bytes:
    """A model with 24 MB of weights that its runtime cannot share."""
    from torch import nn

    layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 1000, 1), nn.Conv2d(1000, 6000, 1))
    return RUNTIME.convert(layer.eval(), (1, 3, 32, 32), "fp32")


def test_memory_is_that_of_the_model_and_not_of_the_runtime() -> None:
    setup = Setup((LocalDevice(),), RUNTIME)
    big, again, small = meter_models(setup, "memory", [big_model()] * 2 + [warm_up_model(RUNTIME)])
    assert MEGABYTES * 1e6 <= big <= 8 * MEGABYTES * 1e6  # a runtime holds several copies while it loads
    assert again == pytest.approx(big, rel=0.05)
    assert small < 5e6


def test_a_profile_adds_metrics_and_says_what_the_device_does_not_report(tmp_path: Path) -> None:
    few = QUICK.model_copy(update={"metric_networks": 2})

    class Metering(ScriptedSession):
        def meter(self, metric: str, model: bytes, warm_up: bytes) -> float:
            assert model
            assert warm_up
            if metric == "energy":
                raise MeasuringError("no counter", cause=NO_METER)
            return 1e6

    phone = ScriptedPhone()
    phone.open = lambda *_: nullcontext(Metering(phone))  # type: ignore[method-assign, misc, assignment]
    path = tmp_path / "t.jsonl"
    profile_space(SPACE, Setup((ScriptedPhone(),), RUNTIME), QUICK, path)  # a table without metrics
    table = profile_space(SPACE, Setup((phone,), RUNTIME), few, path)
    assert list(table.metrics["memory"].values()) == [1e6, 1e6]
    assert table.not_reported == {"energy": "no counter"}
    content = hash_path(path)
    profile_space(SPACE, Setup((phone,), RUNTIME), few, path)
    assert hash_path(path) == content  # nothing was due, and nothing is said twice


def test_a_native_program_measures_latencies_only() -> None:
    with pytest.raises(MeasuringError, match="measures latencies only") as caught:
        metered(ScriptedSession(ScriptedPhone()), "memory", b"model", b"small")
    assert caught.value.cause == NO_METER


class Counter:
    """A fake powercap folder: each run takes 1 mJ of a package whose counter begins again at 7 mJ; idle takes none."""

    def __init__(self, root: Path) -> None:
        self.value = 6000
        self.folder = root / "class" / "powercap" / "intel-rapl:0"
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text("package-0\n")
        (self.folder / "max_energy_range_uj").write_text("7000\n")
        self.write()
        part = self.folder.parent / "intel-rapl:0:0"  # a part of the package does not count twice
        part.mkdir()
        (part / "name").write_text("core\n")

    def write(self) -> None:
        (self.folder / "energy_uj").write_text(f"{self.value}\n")

    def run(self) -> None:
        self.value = (self.value + 1000) % 7000
        self.write()


def test_energy_of_a_run_by_a_counter_that_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs cross the end of the counter's range."""
    counter = Counter(tmp_path)

    def repeat(run: object, seconds: float) -> int:
        for _ in range(3):
            run()  # type: ignore[operator]
        return 3

    monkeypatch.setattr(agent, "repeat", repeat)
    monkeypatch.setattr(agent, "IDLE_SECONDS", 0.001)
    for _ in range(3):  # wherever the counter stands
        found = agent.meter_energy(lambda path: agent.Model(counter.run, None), "m", "w", str(tmp_path))  # type: ignore[no-untyped-call]
        assert found == pytest.approx(1.0)


def test_energy_of_a_phones_cpu_rails(tmp_path: Path) -> None:
    folder = tmp_path / "bus" / "iio" / "devices" / "iio:device0"
    folder.mkdir(parents=True)
    rails = ("[S2M_VDD_CPUCL2], 4600", "[VSYS_PWR_DISPLAY], 900", "[S4M_VDD_CPUCL0], 8")
    lines = ["t=1203", *(f"CH{number}(T=1203){rail}" for number, rail in enumerate(rails))]
    (folder / "energy_value").write_text("\n".join(lines) + "\n")
    assert agent.read_counters(str(tmp_path)) == [(4600, 0), (8, 0)]  # type: ignore[no-untyped-call]


def test_no_counter_of_energy(tmp_path: Path) -> None:
    with pytest.raises(agent.CannotRunError, match="there is no counter of energy") as caught:
        agent.read_counters(str(tmp_path))  # type: ignore[no-untyped-call]
    assert caught.value.cause == NO_METER
    Counter(tmp_path).folder.joinpath("energy_uj").unlink()
    with pytest.raises(agent.CannotRunError, match="intel-rapl:0/energy_uj cannot be read: No such file"):
        agent.read_counters(str(tmp_path))  # type: ignore[no-untyped-call]
