"""`Machine`: the device, the number format and the processes of a search or a training.

One object wraps Hugging Face accelerate. The command line or the API makes it and passes it on. Without a launcher it
is one process on the best available device. Under ``accelerate launch`` or ``torchrun`` every process makes its own,
and all of them run the same code: they draw the same numbers from the same generators on the CPU, and each takes its
part of every batch.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.ranks import Share, all_processes
from dmask_mobile.records.setting_names import MixedPrecision
from dmask_mobile.training.allocator import keep_freed_memory
from dmask_mobile.training.restoring import finite_number, require_keys

if TYPE_CHECKING:
    from accelerate import Accelerator

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "imed out")
MAX_HALVINGS = 24  # of the scale of a loss in fp16


class Machine:
    """Device, number format and processes.

    Args:
        mixed_precision: ``no``, ``bf16`` or ``fp16``; None takes the setting of ``accelerate launch``, or else ``no``.
        compiled: compile networks with ``torch.compile`` for training.

    Raises:
        DmaskError: for a number format that the device does not support.
    """

    def __init__(self, mixed_precision: MixedPrecision | None = None, *, compiled: bool = False) -> None:
        self.compiled = compiled
        self._accelerator = _accelerator(mixed_precision)
        self.device = self._accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.share = Share(self._accelerator.process_index, self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.share.rank == 0

    @property
    def mixed_precision(self) -> str:
        """The number format of forward passes."""
        return str(self._accelerator.mixed_precision)

    def prepared(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Wrappers of a network and its optimizer, with which gradients are averaged over all processes."""
        with _explained_loss(), warnings.catch_warnings():
            # torch's newer option still sends buffers once, but all processes have the same buffers anyway.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            called: nn.Module = self._accelerator.prepare_model(network)
        if self.compiled:
            called = _compiled(called)
        stepped: torch.optim.Optimizer = self._accelerator.prepare_optimizer(optimizer)
        return called, stepped

    @contextmanager
    def full_precision(self, network: nn.Module) -> Iterator[None]:
        """A context in which the unwrapped network computes in fp32, as it does after training."""
        mixed = network.__dict__.pop("forward", None)  # set by accelerate
        try:
            yield
        finally:
            if mixed is not None:
                network.forward = mixed

    def describe(self) -> dict[str, str]:
        """The description of the machine that a run stores."""
        return {
            "device": self.device.type,
            "mixed_precision": self.mixed_precision,
            "num_processes": str(self.share.processes),
        }

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which forward passes use the number format of this machine."""
        context: AbstractContextManager[None] = self._accelerator.autocast()
        return context

    @contextmanager
    def without_exchange(self, network: nn.Module, without: bool) -> Iterator[None]:
        """A context in which, with ``without``, each process adds up gradients; more parts of the batch will follow."""
        if not without:
            yield
            return
        with self._accelerator.no_sync(network):
            yield

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of ``loss``."""
        with _explained_loss():
            self._accelerator.backward(loss)

    def clip(self, network: nn.Module, norm: float | None) -> None:
        """Scales the gradient down to ``norm`` if its norm is larger."""
        if norm is not None:
            self._accelerator.clip_grad_norm_(network.parameters(), norm)

    def moved(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors on the device; gradients flow back to the original tensors."""
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in tensors)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        return self._reduced(values, "sum")

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, on the CPU."""
        return self._reduced(values, "mean")

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        if self.share.processes == 1:
            return values.cpu()
        with _explained_loss():
            reduced: Tensor = self._accelerator.reduce(values.detach().clone().to(self.device), how)
        return reduced.cpu()

    def rows(self, values: Tensor) -> Tensor:
        """The ``values`` (n,) of every process as (processes, n), on the CPU."""
        with _explained_loss():
            gathered: Tensor = self._accelerator.gather(values.to(self.device)[None])
        return gathered.cpu()

    def wait(self) -> None:
        """Waits until all processes have called this."""
        with _explained_loss():
            self._accelerator.wait_for_everyone()

    def share_norms(self, network: nn.Module) -> None:
        """Sets running statistics of batch norms to their means over all processes."""
        if self.share.processes > 1:
            from timm.utils import distribute_bn

            with _explained_loss():
                distribute_bn(network, self.share.processes, reduce=True)

    def check_same(self, content: bytes, what: str) -> None:
        """Checks that ``content`` is the same in every process.

        Raises:
            DmaskError: if it is not.
        """
        if self.share.processes == 1:
            return
        number = int.from_bytes(hashlib.sha256(content).digest()[:7], "big")
        rows = self.rows(torch.tensor([number], dtype=torch.int64))
        if not bool((rows == rows[0]).all()):
            raise DmaskError(
                f"the {what} of {self.share.processes} processes differ",
                "they must run the same versions on the same kind of device; continue from the last checkpoint",
            )

    def scaler_state(self) -> dict[str, float] | None:
        """The state of fp16's loss scaling for a checkpoint; None if there is no scaling."""
        scaler = self._accelerator.scaler
        return None if scaler is None else {name: float(value) for name, value in scaler.state_dict().items()}

    def restore_scaler(self, found: object) -> None:
        """Restores the result of `scaler_state`.

        Raises:
            ValueError: for any other value.
        """
        scaler = self._accelerator.scaler
        if scaler is None or found is None:
            return
        own = scaler.state_dict()
        state = require_keys(found, frozenset(own), "scaler")
        scaler.load_state_dict({name: type(own[name])(finite_number(state[name], name)) for name in own})

    def gradient(self, loss: Tensor, parameter: nn.Parameter) -> Tensor:
        """The gradient of ``loss`` with respect to one parameter, averaged over all processes, on the CPU.

        This is only for losses that do not use a network from `prepared`: ``torch.autograd.grad`` does not work there.
        """
        scaler = self._accelerator.scaler
        scale = 1.0 if scaler is None else float(scaler.get_scale())  # small numbers would become 0 in fp16
        for _ in range(MAX_HALVINGS if scaler is not None else 1):
            (gradient,) = torch.autograd.grad(loss * scale, [parameter], retain_graph=scaler is not None)
            mean = self.mean(gradient / scale)
            if bool(mean.isfinite().all()):
                break
            scale /= 2
        return mean

    def peak_memory_bytes(self) -> int | None:
        """The peak of the memory allocated on an accelerator; None on a CPU."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else None


def _compiled(network: nn.Module) -> nn.Module:
    """The network compiled by ``torch.compile``, once for each resolution that a supernet draws."""
    torch._dynamo.config.recompile_limit = max(
        torch._dynamo.config.recompile_limit, 64
    )  # beyond 8, torch silently stops
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return compiled


def _accelerator(mixed_precision: MixedPrecision | None) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    AcceleratorState._reset_state()  # an earlier machine in this process may have had another number format
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        # Without this setting, accelerate runs processes without a GPU unconnected, each as if it were the only one.
        cpu=all_processes() > 1 and not torch.cuda.is_available(),
        step_scheduler_with_optimizer=False,
        # Two forwards before a backward break with broadcast buffers (pytorch#175024); `share_norms` takes their place.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    accelerator.gradient_accumulation_steps = 1  # independent of the environment: parts of a batch are added up here
    _check_number_format(str(accelerator.mixed_precision), accelerator.device)
    if accelerator.num_processes != all_processes():
        raise DmaskError(
            f"the launcher started {all_processes()} processes, but {accelerator.num_processes} are connected",
            "start them with torchrun or accelerate launch",
        )
    return accelerator


def _check_number_format(name: str, device: torch.device) -> None:
    """Checks that a device supports a number format.

    Raises:
        DmaskError: if it does not, or only by emulation.
    """
    lacks = {
        "no": False,
        "bf16": device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False),
        "fp16": device.type not in ("cuda", "mps"),
    }
    if lacks.get(name, True):
        raise DmaskError(
            f"--mixed-precision must be a format that the device supports, not {shown(name)} on {device.type}",
            "use --mixed-precision no, or run on a device that supports it",
        )


@contextmanager
def _explained_loss() -> Iterator[None]:
    """A context that explains the error of a process whose connection to another process was lost.

    Raises:
        DmaskError: if another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise DmaskError(
            f"another process of this run has ended; its own message says why ({str(error).partition(chr(10))[0]})",
            "start the same command again: it continues from the last checkpoint",
        ) from error
