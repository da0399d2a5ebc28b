"""Repeats an action while a device is absent."""

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
    """The result of ``action``, which is repeated after pauses until it succeeds.

    Args:
        action: the function to call.
        pauses: the seconds to wait before each new attempt.
        on: the error after which it is tried again; it is raised when no pauses are left.
        unless: subclasses of the error after which it is not tried again.
    """
    for pause in pauses:
        try:
            return action()
        except unless:
            raise
        except on as error:
            logger.warning("%s; trying again after %g s", error, pause)
            time.sleep(pause)
    return action()
