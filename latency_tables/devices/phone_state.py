"""Prepares a phone for measurements and restores it afterwards; reads its temperature and battery."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import check_stopped
from latency_tables.devices.adb_client import Adb, serial_number
from latency_tables.devices.device import Conditions, Samples, Session, metered
from latency_tables.user_cache import unwritable, user_cache

TEMPORARY = "/data/local/tmp"  # the only place that the shell may write to and run programs from
FOLDER = f"{TEMPORARY}/dmask-mobile"
FORMER = f"{FOLDER}.stay_on"
STAY_ON = "stay_on_while_plugged_in"
# The former setting is stored on the phone until it is restored, so the next session can restore it after an
# interruption.
PREPARE = f"""[ -s {FORMER} ] || settings get global {STAY_ON} >{FORMER} || exit
rm -rf {FOLDER} && mkdir {FOLDER} && svc power stayon usb"""
RESTORE = f"""rm -rf {FOLDER}
[ -s {FORMER} ] || exit 0
former=$(cat {FORMER})
if [ "$former" = null ]; then settings delete global {STAY_ON}
else settings put global {STAY_ON} "$former"; fi && rm {FORMER}"""
FIXED_PERFORMANCE = ("cmd", "power", "set-fixed-performance-mode-enabled")  # not supported before Android 11

COOLING_SECONDS = 600.0
SURVEY_SECONDS = 10.0  # the time that 'dmask devices' needs for a phone; others wait this long
POSSIBLE_CELSIUS = (-60.0, 150.0)  # other values, such as INT_MIN, mean that there is no sensor
LOOK_SECONDS = 5.0  # between two reads of the thermal status, because each read disturbs the phone


class BusyError(DmaskError):
    """The phone is in use by another session."""


@contextmanager
def prepared(adb: Adb) -> Iterator[str]:
    """Keeps the phone awake at a fixed speed and makes a folder on it; both are undone at the end of the ``with``
    block.

    Raises:
        DmaskError: if it is in use by another session, or its settings cannot be changed.
        DeviceLostError: if it is disconnected.
    """
    with alone(adb.serial, SURVEY_SECONDS), _alone_by_any_way(adb):
        try:
            _change(adb, PREPARE)
            adb.shell(*FIXED_PERFORMANCE, "true")
            yield FOLDER
        except BaseException:
            with suppress(DmaskError):  # the original error says more, and a disconnected phone is not waited for again
                _restore(Adb(adb.serial))
            raise
        _restore(adb)


@contextmanager
def _alone_by_any_way(adb: Adb) -> Iterator[None]:
    """Also excludes sessions that reach the same phone in another way, for example by USB and Wi-Fi."""
    serialno = serial_number(adb)
    if serialno in ("", adb.serial):
        yield
        return
    with alone(serialno, SURVEY_SECONDS):
        yield


def _restore(adb: Adb) -> None:
    adb.shell(*FIXED_PERFORMANCE, "false")
    _change(adb, RESTORE)


def _change(adb: Adb, script: str) -> None:
    done = adb.shell("sh", "-c", script)
    if done.status or done.exception():  # on some phones, `svc` and `settings` end with 0 after an exception
        raise DmaskError(
            f"the settings of phone '{adb.serial}' cannot be changed: {done.tail()}",
            "look for 'USB debugging (Security settings)' in its developer options; the former value of "
            f"{STAY_ON} is in {FORMER} there",
        )


@contextmanager
def alone(serial: str, seconds: float = 0.0) -> Iterator[None]:
    """Excludes other sessions of this user from the phone, because they would disturb each other.

    Raises:
        BusyError: if another session still uses it after ``seconds``.
        DmaskError: if the user's cache, which contains the lock, cannot be written to.
    """
    folder = user_cache()
    lock = FileLock(folder / f"phone-{hashlib.sha256(serial.encode()).hexdigest()[:12]}.lock", timeout=seconds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BusyError(f"phone '{serial}' is in use by another measurement", "wait until that has ended") from None
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


class Thermometer:
    """A phone's thermal status and battery.

    Args:
        adb: the phone.
        patience: the longest time in seconds to wait until a hot phone is cool.
        sleep: a function that waits for some seconds.
        clock: a function that returns seconds.
    """

    def __init__(
        self,
        adb: Adb,
        patience: float = COOLING_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.adb = adb
        self.patience = patience
        self.sleep = sleep
        self.clock = clock
        self._status: int | None = None
        self._looked_at = float("-inf")
        self._patient = True  # otherwise a phone that stays hot would cause the full wait before every sample

    @property
    def status(self) -> int | None:
        """Android's thermal status, 0 (none) to 6 (shutdown), at most 5 s old; None if unknown."""
        if self.clock() - self._looked_at >= LOOK_SECONDS:
            self._look()
        return self._status

    @property
    def hot(self) -> bool:
        """Whether the phone says that it is too warm for its full speed."""
        return bool(self.status)

    def wait_until_cool(self) -> None:
        """Waits until the phone is cool or patience is over; in the latter case it waits again only after it was
        cool."""
        for _ in range(int(self.patience / LOOK_SECONDS) if self._patient else 0):
            if not self.hot:
                break
            check_stopped("waiting for the phone to cool")
            self.sleep(LOOK_SECONDS)
            self._look()
        self._patient = not self.hot

    def conditions(self) -> Conditions:
        """The current state of the phone."""
        return Conditions(self.status, *battery(self.adb.shell("dumpsys", "battery").stdout))

    def unknown(self) -> str:
        """The reason why the thermal status is unknown, as text; empty if it is known."""
        return thermal(self.adb.shell("dumpsys", "thermalservice").stdout)[1]

    def _look(self) -> None:
        self._status, _ = thermal(self.adb.shell("dumpsys", "thermalservice").stdout)
        self._looked_at = self.clock()


def thermal(text: str) -> tuple[int | None, str]:
    """The thermal status in the output of ``dumpsys thermalservice``; or None, and the reason why it is unknown.

    Android derives it only from the skin sensors (``ThermalManagerService``, type 3). A device without a skin sensor
    always reports 0, and so does a service whose sensors are not ready.
    """
    found = re.search(r"^\s*Thermal Status: (\d+)\s*$", text, re.M)
    if found is None:
        return None, "it has no thermal service that reports a status"
    if re.search(r"IsStatusOverride: true", text):
        return None, "its thermal status is overridden ('cmd thermalservice reset' ends that)"
    if re.search(r"HAL Ready: false", text):
        return None, "its thermal service is not ready"
    status = int(found[1])
    if status == 0 and re.search(r"temperatures.*:", text) and not re.search(r"mType=3\b", text):
        return None, "its thermal service has no skin sensor"
    return status, ""


def battery(text: str) -> tuple[float | None, float | None]:
    """Percent and degrees Celsius of the battery in the output of ``dumpsys battery``; None if unknown."""
    if re.search(r"^\s*present: false|UPDATES STOPPED", text, re.M):
        return None, None
    level, scale = _number(r"^\s*level: (\d+)", text), _number(r"^\s*scale: (\d+)", text)
    percent = level if scale is None else 100 * level / scale if scale and level is not None else None
    tenths = _number(r"^\s*temperature: (-?\d+)", text)
    celsius = None if tenths is None else tenths / 10
    return (
        percent if percent is not None and percent <= 100 else None,
        celsius if celsius is not None and POSSIBLE_CELSIUS[0] < celsius < POSSIBLE_CELSIUS[1] else None,
    )


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text, re.M)
    return float(found[1]) if found else None


class WatchedSession:
    """`Session` on a phone that waits until the phone is cool, and marks samples that were measured on a hot phone."""

    def __init__(self, session: Session, thermometer: Thermometer) -> None:
        self.session = session
        self.thermometer = thermometer

    def load(self, key: str, model: bytes) -> None:
        """Makes a model ready; see `Session`."""
        self.session.load(key, model)

    def sample(self, key: str, seconds: float) -> Samples:
        """Times the model; see `Session`."""
        self.thermometer.wait_until_cool()
        hot = self.thermometer.hot
        samples = self.session.sample(key, seconds)
        return samples._replace(hot=hot or self.thermometer.hot)

    def meter(self, metric: str, model: bytes, warm_up: bytes) -> float:
        """A metric of a model on the cool phone; see `MeteringSession`."""
        self.thermometer.wait_until_cool()
        return metered(self.session, metric, model, warm_up)

    def unload(self, key: str) -> None:
        """Forgets a model; see `Session`."""
        self.session.unload(key)

    def conditions(self) -> Conditions:
        """The phone's temperature and battery; see `Session`."""
        return self.thermometer.conditions()
