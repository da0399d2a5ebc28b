"""Checkpoints that survive a crash, and weights as safetensors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import temporary_beside


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors, numbers, strings, lists, dicts) to ``path`` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``, loaded without executing anything.

    Raises:
        DmaskError: when the file does not hold a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise DmaskError(
            f"checkpoint '{path}' does not load: {reason}", "delete it to start this stage from its beginning"
        ) from error
    return state


def save_weights(path: Path, network: nn.Module, child_digest: str) -> None:
    """Writes the network's state to a safetensors file that names its child."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(path) as temporary:
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(state, temporary, {"child_digest": child_digest})


def load_weights(path: Path, network: nn.Module, child_digest: str) -> None:
    """Loads ``path`` into ``network``.

    Raises:
        DmaskError: when the file is damaged or holds the weights of another child.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get("child_digest")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise DmaskError(f"weights '{path}' do not load: {error}", "train the child again: dmask train RUN") from error
    if found != child_digest:
        raise DmaskError(
            f"weights '{path}' belong to child {found}, not {child_digest}", "train this child: dmask train RUN"
        )
    network.load_state_dict(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which libraries that draw from torch's own generator draw from ``seed``; it is restored after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
