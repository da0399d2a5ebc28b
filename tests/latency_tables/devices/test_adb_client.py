"""Debian's adb and the phone of the test suite."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from dmask_mobile.errors import DmaskError
from latency_tables.devices import adb_client
from latency_tables.devices.adb_client import (
    ADVICE,
    Adb,
    Output,
    Phone,
    SlowError,
    UnwillingError,
    attached_phones,
    chosen_phone,
    distinct_phones,
    parse_devices,
    trouble_of,
)
from latency_tables.devices.device import DeviceLostError
from tests.fake_phone import FakePhone

GONE = r"is not attached|is offline|the connection to phone '.*' broke"
HOSTILE = [
    "a b",
    "it's",
    '"quoted"',
    "$(touch hacked)",
    "`touch hacked`",
    "x; touch hacked",
    "line\nline",
    "\\n",
    "*",
    "ü",
]


def test_list_of_phones() -> None:
    text = (
        "List of devices attached\n"
        "8A1X0ABCD              device usb:1-4 product:shiba model:Pixel_8 device:shiba transport_id:3\n"
        "R58M12ABCDE            unauthorized usb:1-2 transport_id:4\n"
        "192.168.1.7:5555       offline transport_id:5\n"
        "0123456789ABCDEF       no permissions (user in plugdev group; are your udev rules wrong?); see "
        "[http://developer.android.com/tools/device.html] usb:1-1 transport_id:6\n"
        "(no serial number)     recovery usb:1-3 transport_id:7\n\n"
    )
    assert parse_devices(text) == (
        Phone("8A1X0ABCD", "device", "Pixel_8"),
        Phone("R58M12ABCDE", "unauthorized"),
        Phone("192.168.1.7:5555", "offline"),
        Phone("0123456789ABCDEF", "no permissions", "", NO_PERMISSIONS),
        Phone("(no serial number)", "recovery"),
    )
    assert parse_devices(text.replace("\n", "\r\n")) == parse_devices(text)  # adb.exe
    started = "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"
    assert parse_devices(started + text) == parse_devices(text)
    assert parse_devices("error: no devices\n") == parse_devices("List of devices attached\n\n") == ()


NO_PERMISSIONS = (
    "(user in plugdev group; are your udev rules wrong?); see [http://developer.android.com/tools/device.html]"
)
WIRELESS = "adb-00000000-AAAAAA (2)._adb-tls-connect._tcp"


def test_names_with_spaces() -> None:
    line = f"{WIRELESS}   device product:dada model:24129PN74G device:dada transport_id:2"
    assert parse_devices(f"List of devices attached\n{line}\n") == (Phone(WIRELESS, "device", "24129PN74G"),)
    offline = f"my device (2)._adb-tls-connect._tcp offline transport_id:2\n{WIRELESS} no permissions; see [x] usb:1-1"
    assert parse_devices(f"List of devices attached\n{offline}\n") == (
        Phone("my device (2)._adb-tls-connect._tcp", "offline"),
        Phone(WIRELESS, "no permissions", "", "see [x]"),
    )


@pytest.mark.parametrize("state", [state for state in ADVICE if state] + ["quiescent"])
def test_every_state_has_its_own_message(state: str) -> None:
    (phone,) = parse_devices(f"List of devices attached\n00000000               {state} transport_id:1\n")
    assert phone == Phone("00000000", state)
    trouble = trouble_of(phone)
    assert trouble is not None
    others = {str(trouble_of(Phone("00000000", other))) for other in ADVICE if other != state}
    assert str(trouble) not in others
    assert str(trouble_of(phone._replace(reason="because"))).count(": because; ") == 1


class Serials(Adb):
    """Phones by their serial numbers."""

    numbers: ClassVar[dict[str, str]] = {}

    def shell(self, *words: str, seconds: float = 30.0) -> Output:
        return Output(0, self.numbers.get(self.serial, "") + "\n", "")


USB, WIFI = Phone("8A1X0ABCD", "device", "Pixel_8"), Phone("192.0.2.10:5555", "device", "Pixel_8")
NAMED = Phone("adb-8A1X0ABCD-x._adb-tls-connect._tcp", "device", "Pixel_8")


@pytest.mark.parametrize(
    ("phones", "numbers", "kept"),
    [
        ([WIFI, USB, NAMED], {USB: "8A1X0ABCD", WIFI: "8A1X0ABCD", NAMED: "8A1X0ABCD"}, [USB]),
        ([WIFI, NAMED], {WIFI: "8A1X0ABCD", NAMED: "8A1X0ABCD"}, [WIFI]),
        ([WIFI, USB], {USB: "8A1X0ABCD", WIFI: "other"}, [WIFI, USB]),
        ([WIFI, USB], {}, [WIFI, USB]),  # they tell no number
        ([WIFI, USB], {USB: "0123456789ABCDEF", WIFI: "0123456789ABCDEF"}, [WIFI, USB]),  # a placeholder
        ([WIFI._replace(model="x"), USB], {USB: "8A1X0ABCD", WIFI: "8A1X0ABCD"}, [WIFI._replace(model="x"), USB]),
        ([USB, USB._replace(serial="b")], {USB: "same"}, [USB, USB._replace(serial="b")]),
        ([WIFI._replace(state="offline"), USB], {}, [WIFI._replace(state="offline"), USB]),
    ],
)
def test_one_phone_by_two_ways_is_one(
    phones: list[Phone], numbers: dict[Phone, str], kept: list[Phone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Serials, "numbers", {phone.serial: number for phone, number in numbers.items()})
    monkeypatch.setattr(adb_client, "Adb", Serials)
    assert list(distinct_phones(phones)) == kept


MIUI = """
Exception occurred while executing 'put':
java.lang.SecurityException: Permission denial: writing to settings requires:android.permission.WRITE_SECURE_SETTINGS
        at com.android.providers.settings.SettingsProvider.enforceWritePermission(SettingsProvider.java:2562)
        at android.os.Binder.execTransact(Binder.java:1129)
"""


def test_the_sentence_of_a_java_exception_is_shown_and_no_frames() -> None:
    sentence = (
        "java.lang.SecurityException: Permission denial: writing to settings"
        " requires:android.permission.WRITE_SECURE_SETTINGS"
    )
    assert Output(255, "", MIUI).tail() == Output(0, MIUI, "").tail() == Output(0, MIUI, "").exception() == sentence
    assert Output(1, "one\ntwo: error: three\n", "").tail() == "one | two: error: three"
    assert Output(1, "Error: no such file\n", "").exception() == ""


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            "no permissions",
            r"'S' is not open to this user \(no permissions\); Debian: apt install android-sdk-pl.*plugdev",
        ),
        ("authorizing", "'S' is still deciding about this computer; unlock it and accept"),
        ("recovery", "'S' is in state 'recovery'; start Android on it"),
        ("", "'S' is not attached; plug it in, switch on USB debugging; 'adb devices' must list it"),
    ],
)
def test_states_that_no_loopback_phone_has(state: str, message: str) -> None:
    with pytest.raises(DmaskError, match=message):
        raise trouble_of(Phone("S", state)) or AssertionError


def test_adb_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DmaskError, match="'adb' is not installed; Debian: apt install adb; macOS: brew install android-pl"
    ):
        chosen_phone()


def test_adb_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its server should be, there is something else."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(other.getsockname()[1]))
        threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
        with pytest.raises(DmaskError, match=r"'adb devices' fails: .*; adb kill-server, then try again"):
            attached_phones()


def test_the_only_phone_is_taken(phone: FakePhone) -> None:
    assert chosen_phone() == chosen_phone(phone.serial) == Phone(phone.serial, "device", "Pixel_8")


def test_no_phone_and_several_phones(server: Path) -> None:
    with pytest.raises(DmaskError, match="no phone is attached; plug it in, switch on USB debugging"):
        chosen_phone()
    with FakePhone(server / "a") as first, FakePhone(server / "b") as second:
        with pytest.raises(DmaskError, match=r"several phones are attached: .*Pixel_8.*; choose one: --device adb:127"):
            chosen_phone()
        assert chosen_phone(second.serial).serial == second.serial
        with pytest.raises(DmaskError, match=rf"no phone 'absent' is attached; attached: .*{first.serial} \(Pixel_8\)"):
            chosen_phone("absent")


def test_unauthorized_and_offline(server: Path) -> None:
    with FakePhone(server / "a", "unauthorized") as phone:
        with pytest.raises(
            DmaskError, match=r"does not trust this computer \(unauthorized\); unlock it and accept 'Allow"
        ):
            chosen_phone()
        with pytest.raises(DeviceLostError, match=r"\(unauthorized\); .*; what was measured is kept"):
            Adb(phone.serial).shell("true")
        with pytest.raises(DeviceLostError, match=r"\(unauthorized\)"):
            Adb(phone.serial).push(Path(__file__), "/data/local/tmp/x")
    with FakePhone(server / "b", "offline") as phone:
        with pytest.raises(DmaskError, match="is offline; plug it in again"):
            chosen_phone()
        with pytest.raises(DeviceLostError, match=r"is offline"):
            Adb(phone.serial).shell("true")


def test_hostile_serials_do_nothing(phone: FakePhone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(phone.folder)
    for serial in [*HOSTILE, "-a", "-s other", "host::features"]:
        with pytest.raises(DmaskError, match=r"no phone .* is attached"):
            chosen_phone(serial)
        with pytest.raises(DeviceLostError, match="is not attached"):
            Adb(serial).shell("true")
    assert phone.commands == []
    assert not (phone.folder / "hacked").exists()


def test_status_stdout_and_stderr_come_apart(phone: FakePhone) -> None:
    adb = Adb(phone.serial)
    assert adb.shell("sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")
    assert adb.shell("printf", "no newline") == (0, "no newline", "")
    assert adb.shell("sh", "-c", "kill -SEGV $$").status == 139
    assert adb.shell("no_such_program").status == 127
    big = adb.shell("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x")
    assert (big.status, len(big.stdout)) == (0, 3_000_000)
    assert adb.shell("cat").stdout == ""  # nobody's stdin is taken


def test_every_word_arrives_as_it_is(phone: FakePhone) -> None:
    script = 'for word; do printf "%s\\0" "$word"; done'
    assert Adb(phone.serial).shell("sh", "-c", script, "sh", *HOSTILE, "").stdout.split("\0")[:-1] == [*HOSTILE, ""]
    assert not list(phone.folder.rglob("hacked"))


def test_pushed_files_are_identical(phone: FakePhone, tmp_path: Path) -> None:
    adb, content = Adb(phone.serial), os.urandom(5_000_000)
    for name in [*HOSTILE[:6], "line\nline", "-n"]:
        path = tmp_path / "from" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
        adb.push(path, f"/data/local/tmp/{name}")
        assert (phone.temporary / name).read_bytes() == content
        assert (phone.temporary / name).stat().st_mode & 0o777 == 0o755
    assert not list(tmp_path.rglob("hacked"))


def test_a_file_that_the_phone_does_not_take(phone: FakePhone) -> None:
    message = r"phone '127.*' does not accept 'test_adb_client.py': couldn't create file: No such file or directory"
    with pytest.raises(UnwillingError, match=message):
        Adb(phone.serial, pauses=(600.0,)).push(Path(__file__), "/data/local/tmp/absent/x")


@pytest.mark.slow
def test_a_command_that_does_not_end(phone: FakePhone) -> None:
    with pytest.raises(SlowError, match=r"phone '.*': 'sh' did not end after 10 s") as raised:
        Adb(phone.serial).shell("sh", "-c", "echo begun; sleep 600", seconds=10)
    assert raised.value.stdout == "begun\n"


def test_unplugged_in_the_middle_of_a_command(phone: FakePhone) -> None:
    adb = Adb(phone.serial)
    phone.on_command = lambda command: phone.unplug()
    with pytest.raises(DeviceLostError, match=GONE):
        adb.shell("sleep", "600")
    phone.unplug()  # adb has forgotten it when this ends
    with pytest.raises(DeviceLostError, match=r"is not attached.*the same command continues"):
        adb.shell("true")
    phone.on_command = lambda command: None
    phone.plug_in()
    assert adb.shell("echo", "back").stdout == "back\n"


def test_unplugged_in_the_middle_of_a_transfer(phone: FakePhone, tmp_path: Path) -> None:
    adb, path = Adb(phone.serial), tmp_path / "model"
    path.write_bytes(os.urandom(5_000_000))
    phone.on_data = lambda size: phone.unplug() if size > 1_000_000 else None
    with pytest.raises(DeviceLostError, match=GONE):
        adb.push(path, "/data/local/tmp/model")
    phone.on_data = lambda size: None
    phone.plug_in()
    adb.push(path, "/data/local/tmp/model")
    assert (phone.temporary / "model").read_bytes() == path.read_bytes()


def test_unplugged_for_a_moment(phone: FakePhone, tmp_path: Path) -> None:
    """What was under way is done again."""
    adb, path = Adb(phone.serial, pauses=(0.1,) * 300), tmp_path / "model"
    path.write_bytes(os.urandom(2_000_000))

    def replug(_: object) -> None:
        phone.on_command, phone.on_data = lambda _: None, lambda _: None
        phone.unplug()
        phone.plug_in()

    phone.on_command = replug
    assert adb.shell("sh", "-c", "sleep 1; echo done").stdout == "done\n"
    phone.on_data = replug
    adb.push(path, "/data/local/tmp/model")
    assert (phone.temporary / "model").read_bytes() == path.read_bytes()


def test_output_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_client, "MAX_SAID_BYTES", 100_000)
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        adb_client._run(["sh", "-c", "yes x | tr -d '\\n'"], 600.0)
    assert 100_000 < len(caught.value.stdout) < 300_000
    error = SlowError("S", ["program"], 600.0, caught.value.stdout.decode())
    assert error.problem == "phone 'S': 'program' did not end after 100,000 bytes"
    monkeypatch.setattr(adb_client, "MAX_SAID_BYTES", 2**40)
    with pytest.raises(subprocess.TimeoutExpired):
        adb_client._run(["sh", "-c", "while :; do echo x; sleep 0.1; done"], 0.5)
    done = adb_client._run(["sh", "-c", "echo out; echo err >&2; exit 7"], 60.0)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
