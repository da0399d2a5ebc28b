"""Whether a phone is an emulator, whose times are meaningless."""

from __future__ import annotations

import re

from latency_tables.devices.adb_client import Adb

# Properties that only emulators set, and their values.
FLAGS = {
    "ro.kernel.qemu": "1",
    "ro.boot.qemu": "1",
    "ro.hardware.virtual_device": "1",
    "ro.build.characteristics": "emulator",
    "init.svc.qemud": "",
    "init.svc.qemu-props": "",
    "init.svc.goldfish-setup": "",
    "init.svc.genyd": "",
    "init.svc.vbox86-setup": "",
    "init.svc.noxd": "",
    "init.svc.nox-setup": "",
    "init.svc.droid4x": "",
    "init.svc.microvirtd": "",
    "init.svc.ttVM_x86-setup": "",
    "init.svc.andy": "",
    "ro.genymotion.version": "",
    "ro.genymotion.device.id": "",
    "persist.waydroid.width": "",
    "waydroid.host.user": "",
    "bst.version": "",
    "ro.bluestacks.version": "",
    "ro.anbox.version": "",
}
# Properties that name the hardware.
NAMES = (
    "ro.hardware",
    "ro.boot.hardware",
    "ro.product.manufacturer",
    "ro.product.brand",
    "ro.product.model",
    "ro.product.device",
    "ro.product.name",
    "ro.product.board",
    "ro.board.platform",
    "ro.build.product",
    "ro.bootloader",
    "ro.hardware.egl",
    "ro.hardware.vulkan",
)
EMULATORS = re.compile(
    r"goldfish|ranchu|vbox86|genymotion|cutf|cuttlefish|vsoc|waydroid|anbox|bluestacks|\bbst|\bandyos|droid4x|ttvm_"
    r"|ldplayer|\bmemu\b|microvirt|android_x86|\bredroid|\bnox|sdk_g?phone|google_sdk|android sdk built for|\bsdk_x86"
    r"|\bemulat|emu64|generic_x86|swiftshader|\blavapipe\b|subsystem for android|windows_x86",
    re.IGNORECASE,
)


def is_emulated(adb: Adb) -> bool:
    """Whether the phone's properties or its name in adb are those of an emulator."""
    if re.match(r"emulator-\d+$", adb.serial):
        return True
    names = (*FLAGS, *NAMES)
    told = adb.shell("sh", "-c", "; ".join(f"getprop {name}" for name in names)).stdout.split("\n")
    values = dict(zip(names, (line.strip() for line in told), strict=False))
    flagged = any(values.get(name) and values[name] == (wanted or values[name]) for name, wanted in FLAGS.items())
    return flagged or any(EMULATORS.search(values.get(name, "")) for name in NAMES)
