"""The one exception that users meet."""

from __future__ import annotations


class DmaskError(Exception):
    """Bad input or a broken environment: says the rule, the value that was met and what to do.

    The command line prints it as one message and ends with status 2.

    Args:
        problem: the rule that was broken and the value that broke it.
        fix: what the user can do about it.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}" if fix else problem)
