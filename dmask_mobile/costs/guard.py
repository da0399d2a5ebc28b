"""Calls the code of a user's own cost: its exceptions are reported as the user's, and its results are checked."""

from __future__ import annotations

import math
import numbers
from contextlib import AbstractContextManager

from dmask_mobile.errors import DmaskError, code_of_user, shown

_FIX = "correct the cost"


def custom_code(cost: str, what: str) -> AbstractContextManager[None]:
    """A context that turns an exception into a DmaskError naming the cost, the called function and the exception.

    Args:
        cost: the cost's name.
        what: the called function and the block, such as ``block_cost of skip 16->16 at 8 px``.
    """
    return code_of_user(f"custom cost '{shown(cost)}': {what}", _FIX)


def checked_number(value: object, cost: str, what: str) -> float:
    """``value`` as a finite float >= 0.

    Raises:
        DmaskError: if it is not, naming the cost and the function that returned it.
    """
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise DmaskError(
            f"custom cost '{shown(cost)}': {what} must return a finite number >= 0, got {shown(repr(value))}", _FIX
        )
    return number
