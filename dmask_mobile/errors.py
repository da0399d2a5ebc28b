"""The exception for all errors of users, and how text from untrusted sources is shown in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MAX_SHOWN = 200  # characters of a value
MAX_MESSAGE = 2000  # characters of a message from any source


class DmaskError(Exception):
    """Bad input or a broken environment: states the rule, the value that was found and what to do.

    The command line prints it as one message and ends with status 2. Control characters in it are escaped.

    Args:
        problem: the rule that was broken and the value that broke it.
        fix: what the user can do about it.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        self.problem = shown(problem, MAX_MESSAGE)
        self.fix = shown(fix, MAX_MESSAGE)
        super().__init__(f"{self.problem}; {self.fix}" if fix else self.problem)


@contextmanager
def code_of_user(what: str, fix: str) -> Iterator[None]:
    """A context for calls of code that the user wrote: its exceptions become a DmaskError, whose cause they are.

    Args:
        what: the code and the called function, such as ``data 'mine:Photos': splits()``.
        fix: what the user can do about it.
    """
    try:
        yield
    except DmaskError:
        raise
    except (Exception, SystemExit) as error:
        raise DmaskError(
            f"{what} raised {type(error).__name__}: {shown(error)}", f"{fix}; --debug shows the traceback"
        ) from error


def shown(value: object, most: int = MAX_SHOWN) -> str:
    r"""``value`` as text that is safe in a terminal: control characters escaped, at most ``most`` characters.

    >>> shown("a\x1b[31m" + "b" * 10, 9)
    'a\\x1b[3…'
    """
    text = str(value)
    safe = printable(text[: most + 1])  # of a value of 30 MB, only the beginning is escaped
    return safe if len(text) <= most and len(safe) <= most else f"{safe[: most - 1]}…"


def printable(text: str) -> str:
    r"""``text`` with control characters escaped, including line ends.

    >>> printable("a\x1b[31m\n")
    'a\\x1b[31m\\n'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
