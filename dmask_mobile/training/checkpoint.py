"""Checkpoints that survive a crash, and weights as safetensors. Both contain a checksum of their content.

The checksum is a SHA-256 over names, types, shapes and bytes (`content_digest`), stored inside the file, so that file
and checksum are always written together. Files of older versions have none and are loaded without that check. The last
two checkpoints are kept. If the last one is refused, the message offers the one before it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.records.base import temporary_beside
from dmask_mobile.training.restoring import restore_module

CHECKSUM = "content_sha256"
VERSION, CURRENT_VERSION = "version", 2  # version 1 had no number, no moving average and no state of several processes
WEIGHTS_METADATA = frozenset(("child_digest", CHECKSUM))
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors, numbers, strings, lists, dicts) to ``path`` in one step.

    The previous content of ``path`` is kept as the file `previous_of` it.

    Raises:
        DmaskError: if the disk is full; all previous files are kept.
    """
    state = {VERSION: CURRENT_VERSION, **state}
    # Serialized in memory first: torch aborts the process if the disk fills up while torch writes the file.
    content = io.BytesIO()
    torch.save({**state, CHECKSUM: content_digest(state)}, content)
    _write(path, content.getbuffer(), keep_previous=True)


def previous_of(path: Path) -> Path:
    """The path of the checkpoint before the one in ``path``."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def remove_checkpoints(path: Path) -> None:
    """Removes a checkpoint and the one before it."""
    previous_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def take_previous(path: Path, take: Callable[[dict[str, Any]], None]) -> None:
    """Passes the checkpoint before the last to ``take``, which may refuse it; `confirm_previous` makes it the last one.

    Raises:
        DmaskError: if there is none, or it is refused.
    """
    previous = previous_of(path)
    if not previous.exists():
        raise DmaskError(f"there is no checkpoint before '{path}'", "continue without --previous, or with --restart")
    take(load_checkpoint(previous))


def confirm_previous(path: Path) -> None:
    """Replaces the last checkpoint by the one before it; the last one is kept under another name."""
    if path.exists():
        _give_second_name(path, path.with_name(f"{path.name}.refused"))
    previous_of(path).replace(path)


def go_on_from(path: Path, take: Callable[[dict[str, Any]], None]) -> None:
    """Passes the checkpoint in ``path`` to ``take``, which may refuse it.

    Raises:
        DmaskError: if it is refused; the message offers the one before it if that one is valid.
    """
    try:
        take(load_checkpoint(path))
    except DmaskError as refused:
        previous = previous_of(path)
        if not previous.exists():
            raise
        try:
            take(load_checkpoint(previous))
        except DmaskError:
            raise refused from None
        raise DmaskError(
            f"{refused.problem}; the checkpoint before it, '{previous.name}', is valid",
            "continue from that one with --previous, or start again with --restart",
        ) from refused


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``, loaded without executing anything.

    Raises:
        DmaskError: if the file is not a checkpoint, or its content does not match its checksum.
    """
    try:
        state = _load_tensors(path)
        _check_version(state.get(VERSION))
        expected = state.pop(CHECKSUM, None)
        intact = expected is None or content_digest(state) == expected
    except Exception as error:  # torch may raise any exception when it reads arbitrary bytes
        # torch's own message would recommend loading the file without safety checks.
        reason = (
            "it contains more than tensors, numbers and text" if isinstance(error, pickle.UnpicklingError) else error
        )
        reason = str(reason).partition("\n")[0] or type(error).__name__
        raise DmaskError(f"checkpoint '{path}' cannot be loaded: {reason}", _AGAIN) from error
    if not intact:
        raise DmaskError(f"checkpoint '{path}' is damaged: its content does not match its checksum", _AGAIN)
    state.pop(VERSION, None)
    return state


def _check_version(found: object) -> None:
    if found is not None and (type(found) is not int or not 1 <= found <= CURRENT_VERSION):
        raise ValueError(
            f"it has version {shown(repr(found))}, but this dmask-mobile reads versions up to {CURRENT_VERSION}"
        )


_AGAIN = "restore the file, or start this stage again with --restart"


def _load_tensors(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError("it is not a regular file")
    if not zipfile.is_zipfile(path):
        raise ValueError("it is incomplete, or it is not a checkpoint of dmask-mobile")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed; checkpoints of dmask-mobile are not")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("it contains no named values")
    size, num_bytes = path.stat().st_size, sum(t.numel() * t.element_size() for t in _tensors(state))
    if num_bytes > size:  # a tensor may claim any shape with only a few stored bytes
        raise ValueError(f"its tensors claim {num_bytes:,} bytes, but the file has {size:,}")
    return state


def _tensors(value: object) -> Iterator[Tensor]:
    """Every tensor in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def content_digest(content: object) -> str:
    """SHA-256 over nested dicts and lists of tensors, numbers and strings: names, types, shapes and bytes."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}\0".encode())
            digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            digest.update(f"dict {len(value)}\0".encode())
            for key, part in value.items():
                add(key)
                add(part)
        elif isinstance(value, list | tuple):
            digest.update(f"list {len(value)}\0".encode())
            for part in value:
                add(part)
        else:
            digest.update(f"{type(value).__name__} {value!r}\0".encode())

    add(content)
    return digest.hexdigest()


def save_weights(path: Path, network: nn.Module, child_digest: str) -> None:
    """Writes the network's state to a safetensors file that names its child.

    Raises:
        DmaskError: if the disk is full; the previous content of ``path`` is kept.
    """
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    metadata = {"child_digest": child_digest, CHECKSUM: _weights_digest(state, child_digest)}
    _write(path, to_safetensors(state, metadata))


def child_of_weights(path: Path) -> str | None:
    """The digest of the child that a weights file names; None if it is not a file of `save_weights`."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("child_digest")
    except (OSError, SafetensorError, ValueError):
        return None


def load_weights(path: Path, network: nn.Module, child_digest: str, file_sha256: str | None = None) -> None:
    """Loads ``path`` into ``network``.

    Args:
        path: the safetensors file.
        network: receives the weights.
        child_digest: the digest of the child that the weights must belong to.
        file_sha256: the expected SHA-256 of the file, if a record contains it.

    Raises:
        DmaskError: if the file is damaged, is not the expected file or contains the weights of another child.
    """
    again = "restore the file, or train the child again: dmask train RUN"
    try:
        if not path.is_file():
            raise OSError("there is no such file" if not path.exists() else "it is not a regular file")
        if file_sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != file_sha256:
            raise ValueError("its checksum differs from the one in run.json")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if unknown := sorted(set(metadata) - WEIGHTS_METADATA):
            raise ValueError(f"unknown metadata '{unknown[0]}'")
        expected, found = metadata.get(CHECKSUM), metadata.get("child_digest")
        if expected is not None and _weights_digest(state, found or "") != expected:
            raise ValueError("its content does not match its checksum")
    except (OSError, SafetensorError, ValueError) as error:
        raise DmaskError(f"weights '{path}' cannot be loaded: {error}", again) from error
    if found != child_digest:
        raise DmaskError(
            f"weights '{path}' belong to child {found}, not to {child_digest}", "train this child: dmask train RUN"
        )
    try:
        restore_module(network, state, "weights")
    except ValueError as error:
        raise DmaskError(f"weights '{path}' do not fit their child: {error}", again) from error


def _weights_digest(state: dict[str, Tensor], child_digest: str) -> str:
    return content_digest([child_digest, {name: state[name] for name in sorted(state)}])


def _give_second_name(path: Path, second: Path) -> None:
    """Makes the content of ``path`` also available as ``second``; ``path`` itself always remains."""
    with temporary_beside(second) as temporary:
        temporary.unlink()
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)


def _write(path: Path, content: bytes | memoryview, *, keep_previous: bool = False) -> None:
    """Writes a file in one step; with ``keep_previous`` the previous file is kept as `previous_of` it.

    Raises:
        DmaskError: if the disk or the user's quota is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_beside(path) as temporary:
            temporary.write_bytes(content)
            if keep_previous and path.exists():
                _give_second_name(path, previous_of(path))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise DmaskError(
            f"cannot write {len(content):,} bytes to '{path}': {os.strerror(error.errno)}",
            "free some space and start the same command again; it continues from the last checkpoint",
        ) from error
