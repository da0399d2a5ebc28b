"""The checkpoint file of a search: the identity of the search, and everything that is needed to resume it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dmask_mobile.data.images import ImageData, normalization_of
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.state import Position, SearchState
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import load_checkpoint, save_checkpoint
from dmask_mobile.training.restoring import first_difference, restore_module

IDENTITY = "settings"  # the key that identifies the search of a checkpoint


def identity_of(
    space: SearchSpace, data: ImageData, budgets: Sequence[Budget], settings: SearchSettings
) -> dict[str, Any]:
    """What must be equal in two searches so that one can resume from the other's checkpoint."""
    return {
        "space": space.digest(),
        "data": data.digest,
        **normalization_of(data),
        "budgets": [[budget.cost.name, budget.cost.digest(), budget.limit] for budget in budgets],
        "settings": settings.model_dump(),
    }


def write(path: Path, identity: dict[str, Any], content: dict[str, Any]) -> None:
    """Writes the checkpoint of a search to ``path``; ``content`` is the result of `SearchState.to_dict`."""
    save_checkpoint(path, {IDENTITY: identity, **content})


def taker(path: Path, identity: dict[str, Any], state: SearchState, last: Position) -> Callable[[dict[str, Any]], None]:
    """A function that restores a search from the content of a checkpoint.

    Args:
        path: the checkpoint; used in messages.
        identity: the identity of the search that is resumed.
        state: receives the content of the checkpoint.
        last: the position at the end of the search.

    Returns:
        A function that takes the content and raises DmaskError if it belongs to another search or is damaged.
    """

    def take(content: dict[str, Any]) -> None:
        found = content.pop(IDENTITY, None)
        if difference := first_difference(_by_name(found), _by_name(identity)):
            raise DmaskError(
                f"'{path}' belongs to a search with other settings: {difference}",
                "use the same space, data, budgets, tables and settings (the number of epochs cannot change, because"
                " the schedules depend on it), start again with --restart, or choose another run folder",
            )
        with _explained(path):
            state.restore(content, last)

    return take


def restore_supernet(path: Path, supernet: MaskedSupernet) -> None:
    """Loads the weights of a search's supernet from its checkpoint.

    Raises:
        DmaskError: for a checkpoint of another space or a damaged checkpoint.
    """
    content = load_checkpoint(path)
    identity = content.get(IDENTITY)
    found = identity.get("space") if isinstance(identity, dict) else None
    if found != supernet.space.digest():
        raise DmaskError(f"'{path}' belongs to another space than run.json", "restore the file, or search again")
    with _explained(path):
        restore_module(supernet, content.get("supernet"), "supernet")


class _explained:  # noqa: N801 - a context manager, used as a function
    """A context that turns a ValueError about the content into a DmaskError that names the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, error_type: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError):
            raise DmaskError(
                f"checkpoint '{self.path}' does not fit its search: {error}",
                "restore the file, or start again with --restart",
            ) from error


def _by_name(identity: object) -> object:
    """An identity with its budgets by name, so that a message can name the difference."""
    if not isinstance(identity, dict):
        return identity
    try:
        budgets = {name: {"cost": digest, "limit": limit} for name, digest, limit in identity["budgets"]}
    except (KeyError, TypeError, ValueError):
        return identity
    return {**identity, "budgets": budgets}
