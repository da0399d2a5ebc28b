"""A phone made ready for measuring, and as it was afterwards; its temperature and battery."""

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
from latency_tables.devices.device import Conditions, Samples, Session
from latency_tables.user_cache import unwritable, user_cache

TEMPORARY = "/data/local/tmp"  # the only place that the shell may write to and run programs from
FOLDER = f"{TEMPORARY}/dmask-mobile"
FORMER = f"{FOLDER}.stay_on"
STAY_ON = "stay_on_while_plugged_in"
# The former setting stays on the phone until it is restored: the next session makes good for one that was cut off.
PREPARE = f"""[ -s {FORMER} ] || settings get global {STAY_ON} >{FORMER} || exit
rm -rf {FOLDER} && mkdir {FOLDER} && svc power stayon usb"""
RESTORE = f"""rm -rf {FOLDER}
[ -s {FORMER} ] || exit 0
former=$(cat {FORMER})
if [ "$former" = null ]; then settings delete global {STAY_ON}
else settings put global {STAY_ON} "$former"; fi && rm {FORMER}"""
FIXED_PERFORMANCE = ("cmd", "power", "set-fixed-performance-mode-enabled")  # a phone before Android 11 knows it not

COOLING_SECONDS = 600.0
SURVEY_SECONDS = 10.0  # what 'dmask devices' takes of a phone: so long it is waited for
POSSIBLE_CELSIUS = (-60.0, 150.0)  # others, INT_MIN say, stand for no sensor
LOOK_SECONDS = 5.0  # between looks at the thermal status: each one disturbs the phone


class BusyError(DmaskError):
    """A phone that another session measures on."""


@contextmanager
def prepared(adb: Adb) -> Iterator[str]:
    """A phone that stays awake at a fixed speed, and a folder on it; both are gone when the block ends.

    Raises:
        DmaskError: when it is in use by another session, and when its settings cannot be changed.
        DeviceLostError: when it leaves.
    """
    with alone(adb.serial, SURVEY_SECONDS), _alone_by_any_way(adb):
        try:
            _change(adb, PREPARE)
            adb.shell(*FIXED_PERFORMANCE, "true")
            yield FOLDER
        except BaseException:
            with suppress(DmaskError):  # the error under way says more; a phone that is gone is not waited for again
                _restore(Adb(adb.serial))
            raise
        _restore(adb)


@contextmanager
def _alone_by_any_way(adb: Adb) -> Iterator[None]:
    """Also keeps sessions away that reach the same phone by another way, USB and Wi-Fi say."""
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
    if done.status or done.exception():  # `svc` and `settings` of some phones end with 0 after an exception
        raise DmaskError(
            f"the settings of phone '{adb.serial}' cannot be changed: {done.tail()}",
            "look for 'USB debugging (Security settings)' in its developer options; the former value of "
            f"{STAY_ON} is in {FORMER} there",
        )


@contextmanager
def alone(serial: str, seconds: float = 0.0) -> Iterator[None]:
    """Keeps other sessions of this user from the phone: both would measure the other as well.

    Raises:
        BusyError: when another one has it, also after ``seconds``.
        DmaskError: when the user's cache, which holds the lock, cannot be written to.
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
        patience: seconds to wait at most for a hot phone to become cool.
        sleep: waits for some seconds.
        clock: tells seconds.
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
        self._patient = True  # a phone that stays hot would else cost the patience before every sample

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
        """Returns when the phone is cool, or when patience is over: then it waits no more until it has been cool."""
        for _ in range(int(self.patience / LOOK_SECONDS) if self._patient else 0):
            if not self.hot:
                break
            check_stopped("waiting for the phone to cool")
            self.sleep(LOOK_SECONDS)
            self._look()
        self._patient = not self.hot

    def conditions(self) -> Conditions:
        """The state of the phone now."""
        return Conditions(self.status, *battery(self.adb.shell("dumpsys", "battery").stdout))

    def unknown(self) -> str:
        """Why the thermal status is not known, in words; empty where it is."""
        return thermal(self.adb.shell("dumpsys", "thermalservice").stdout)[1]

    def _look(self) -> None:
        self._status, _ = thermal(self.adb.shell("dumpsys", "thermalservice").stdout)
        self._looked_at = self.clock()


def thermal(text: str) -> tuple[int | None, str]:
    """The thermal status in the output of ``dumpsys thermalservice``; or None, and why it is not known.

    Android derives it from the sensors of the skin alone (``ThermalManagerService``, type 3): a device without one says
    0 for ever. So does a service whose sensors are not ready.
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
    """Percent and degrees Celsius of the battery in the output of ``dumpsys battery``; None where it is not known."""
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
    """`Session` on a phone: it waits until the phone is cool, and marks what was measured while it was not."""

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

    def unload(self, key: str) -> None:
        """Forgets a model; see `Session`."""
        self.session.unload(key)

    def conditions(self) -> Conditions:
        """The phone's temperature and battery; see `Session`."""
        return self.thermometer.conditions()
