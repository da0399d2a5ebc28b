"""Calls the code of a user's own cost: what it raises is reported as the user's, what it returns is checked."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from contextlib import contextmanager

from dmask_mobile.errors import DmaskError, shown

_FIX = "correct the cost; --debug shows the traceback"


@contextmanager
def custom_code(cost: str, what: str) -> Iterator[None]:
    """Inside, an exception becomes a DmaskError that names the cost, what was called, and the exception.

    Args:
        cost: the cost's name.
        what: what was called, and on which block: ``block_cost of skip 16->16 at 8 px``.
    """
    try:
        yield
    except DmaskError:
        raise
    except Exception as error:
        raise DmaskError(
            f"custom cost '{shown(cost)}': {what} raised {type(error).__name__}: {shown(error)}", _FIX
        ) from error


def checked_number(value: object, cost: str, what: str) -> float:
    """``value`` as a finite float >= 0.

    Raises:
        DmaskError: when it is none, naming the cost and what returned it.
    """
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise DmaskError(
            f"custom cost '{shown(cost)}': {what} must return a finite number >= 0, got {shown(repr(value))}", _FIX
        )
    return number
