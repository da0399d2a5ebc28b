"""Trying again while a device is not there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

logger = logging.getLogger(f"dmask_mobile.{__name__}")

T = TypeVar("T")


def retried(
    action: Callable[[], T],
    pauses: Sequence[float],
    on: type[Exception],
    unless: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """What ``action`` gives, after as many pauses as it takes.

    Args:
        action: what is tried.
        pauses: seconds to wait before each time that it is tried again.
        on: the error after which it is tried again; raised when there are no pauses left.
        unless: kinds of it after which it is not.
    """
    for pause in pauses:
        try:
            return action()
        except unless:
            raise
        except on as error:
            logger.warning("%s; it is tried again after %g s", error, pause)
            time.sleep(pause)
    return action()
