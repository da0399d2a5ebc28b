"""What is refused before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from latency_tables.devices.device import DeviceInfo, Session
from latency_tables.devices.options import DeviceOptions
from latency_tables.profiling.profile import profile_space
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.profiling.setup import Setup, setup_for
from latency_tables.runtimes.litert import LiteRTRuntime
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from latency_tables.runtimes.runtime import Runtime

SPACE = SearchSpace.read(Path(__file__).parents[2] / "golden" / "space_v1.yaml")


class TwoCores:
    """A device that refuses to be opened."""

    def describe(self, runtime: Runtime) -> DeviceInfo:
        return DeviceInfo("Board", "Linux", 2, "1.0")

    @contextmanager
    def open(self, runtime: Runtime, threads: int, delegate: str) -> Iterator[Session]:
        raise DmaskError("it does not open", "open it")
        yield


@pytest.mark.parametrize(
    ("threads", "cores", "message"),
    [
        (3, (), "3 threads on 2 cores would wait for each other; use fewer --threads"),
        (2, (1,), "2 threads on 1 cores would wait for each other"),
        (1, (1, 2), "the device has the cores 0 to 1, not 2; choose others with --cores"),
    ],
)
def test_every_thread_has_a_core_of_its_own(threads: int, cores: tuple[int, ...], message: str) -> None:
    setup = Setup((TwoCores(),), OnnxRuntime(), threads, reached=DeviceOptions(cores=cores))
    with pytest.raises(DmaskError, match=message):
        setup.head()


def test_what_a_device_refuses_begins_no_table(tmp_path: Path) -> None:
    with pytest.raises(DmaskError, match="it does not open; open it"):
        profile_space(SPACE, Setup((TwoCores(),), OnnxRuntime()), ProfileSettings(), tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()


def test_models_that_cannot_be_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiteRTRuntime, "converters", ("no-such-distribution",))
    message = r"the models of litert are made by no-such-distribution, .*; pip install 'dmask-mobile\[litert\]'"
    with pytest.raises(DmaskError, match=message):
        setup_for([DeviceOptions()], "litert")


def test_devices_that_share_a_table_are_run_alike() -> None:
    options = [DeviceOptions(at="adb:a", cores=(7,)), DeviceOptions(at="adb:b", cores=(0,))]
    with pytest.raises(DmaskError, match="devices that share a table must have the same options"):
        setup_for(options, "onnxruntime")
