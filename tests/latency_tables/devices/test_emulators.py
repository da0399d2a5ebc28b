"""Emulators by their properties, as public collections list them; and phones whose properties are similar."""

from __future__ import annotations

import shlex

import pytest

from latency_tables.devices.adb_client import Adb, Output
from latency_tables.devices.emulators import is_emulated


class Properties(Adb):
    """A phone of which nothing but its properties is known."""

    def __init__(self, properties: dict[str, str], serial: str = "8A1X0ABCD") -> None:
        super().__init__(serial)
        self.properties = properties

    def shell(self, *words: str, seconds: float = 30.0) -> Output:
        names = [shlex.split(command)[1] for command in words[-1].split(";")]
        return Output(0, "".join(self.properties.get(name, "") + "\n" for name in names), "")


@pytest.mark.parametrize(
    "properties",
    [
        {"ro.kernel.qemu": "1"},
        {"ro.boot.qemu": "1"},
        {"ro.hardware": "ranchu", "ro.product.model": "sdk_gphone64_arm64"},
        {"ro.hardware": "goldfish"},
        {"ro.product.manufacturer": "Genymotion", "ro.hardware": "vbox86"},
        {"ro.product.brand": "waydroid", "ro.product.model": "WayDroid x86_64 Device"},
        {"ro.hardware": "cutf_cvm", "ro.product.model": "Cuttlefish x86_64 phone", "ro.product.device": "vsoc_x86_64"},
        {"ro.product.model": "BlueStacks", "ro.product.device": "bst_x86"},
        {"ro.product.board": "nox", "ro.product.model": "SM-G988N"},
        {"init.svc.noxd": "running", "ro.product.manufacturer": "samsung"},
        {"ro.hardware": "ttVM_x86"},
        {"ro.product.model": "Android SDK built for x86"},
        {"ro.hardware": "android_x86"},
        {"ro.product.device": "redroid_x86_64"},
        {"ro.product.model": "Subsystem for Android(TM)", "ro.product.board": "windows_x86_64"},
        {"ro.hardware.virtual_device": "1"},
    ],
)
def test_emulators(properties: dict[str, str]) -> None:
    assert is_emulated(Properties(properties))


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"ro.product.manufacturer": "Google", "ro.product.model": "Pixel 8", "ro.hardware": "shiba"},
        {"ro.product.manufacturer": "samsung", "ro.boot.hardware": "qcom", "ro.product.name": "knoxx"},
        {"ro.hardware": "mt6989", "ro.product.brand": "Xiaomi", "ro.kernel.qemu": "0", "ro.boot.qemu": "0"},
        {"ro.product.board": "QC_Reference_Phone", "ro.build.characteristics": "default"},
    ],
)
def test_phones(properties: dict[str, str]) -> None:
    assert not is_emulated(Properties(properties))


def test_an_emulator_by_its_name_for_adb() -> None:
    assert is_emulated(Properties({}, "emulator-5554"))
