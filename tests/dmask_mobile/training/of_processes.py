"""Run by torchrun in tests: what one or several processes come to, as files.

``equal FOLDER``: gradients of one batch and a short search, with batch norms in evaluation mode. ``train FOLDER``: a
training, norms as always. ``lost FOLDER``: a training in which process 1 ends at the third step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.errors import DmaskError
from dmask_mobile.interruption import StoppedError
from dmask_mobile.nets.build import build
from dmask_mobile.records.setting_names import SearchMethod
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.search import Searcher
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.search.soft_gates import SoftGates
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import content_digest
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import TrainSettings, train_child
from tests.dmask_mobile.search.test_budgets import MACS
from tests.dmask_mobile.small import SPACE

SEARCH = SearchSettings(epochs=2, batch_size=24, warmup=0.5, min_gate_steps=6, evaluations=20, trials=1, seed=3)
TRAINING = TrainSettings(epochs=2, batch_size=24, learning_rate=0.05, accumulate=2, drop_path=0.2)


def images() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (150, 3, 16, 16), dtype=torch.uint8, generator=generator)
    examples = ImageSet.in_memory(pixels, torch.arange(150) % 36)
    return ImageData("random", "digest", tuple(map(str, range(36))), examples, examples, (0.5,) * 3, (0.3,) * 3, False)


def searcher(machine: Machine, method: SearchMethod) -> Searcher:
    settings = SEARCH.model_copy(update={"method": method})
    return Searcher(SPACE, images(), [Budget(MACS, sum(MACS.reachable()) / 2)], settings, machine)


def equal(folder: Path) -> None:
    MaskedSupernet.train = lambda self, mode=True: torch.nn.Module.train(self, False)  # type: ignore[method-assign]
    machine = Machine()
    one = searcher(machine, "dmasking")
    one.called.train()
    batch = next(one.parts.batches(one.for_weights, SEARCH.batch_size, 5, 0))
    loss = F.cross_entropy(one.called(batch.images, one.gate_training.draw()), batch.labels, reduction="sum")
    machine.backward(loss * batch.weight)
    weights = torch.cat([p.grad.flatten() for p in one.supernet.parameters() if p.grad is not None])
    assert isinstance(one.gate_training, SoftGates)
    gates, _ = one.gate_training._draw()
    loss = F.cross_entropy(one.supernet(batch.images, gates), batch.labels, reduction="sum") * batch.weight
    of_gates = machine.gradient(loss, one.logits.logits)
    found = searcher(machine, "dmasking").run(folder / "dmasking" / "c.pt")
    other = searcher(machine, "single_path")
    other.run(folder / "single_path" / "c.pt")
    evaluations = torch.tensor([[e.loss, *e.choice.indices] for e in other.state.evaluations], dtype=torch.float64)
    if machine.is_main:
        drawn = torch.cat([gate.detach().flatten() for gate in gates])
        torch.save([weights, of_gates, drawn, found.logits.logits.detach(), evaluations], folder / "equal.pt")


def train(folder: Path, stop_at: int | None = None, how: int = signal.SIGTERM) -> None:
    machine = Machine()
    network = build(SPACE.child(SPACE.largest()))
    steps = 0

    def count(module: torch.nn.Module, _: object) -> None:
        nonlocal steps
        steps += module.training
        if steps == stop_at and machine.share.rank == 1:
            os.kill(os.getpid(), how)

    network.register_forward_pre_hook(count)
    try:
        trained = train_child(network, images(), TRAINING, folder / "t.pt", machine=machine)
    except StoppedError as stopped:
        (folder / f"stopped{machine.share.rank}").write_text(str(stopped))
        return
    except DmaskError as error:
        (folder / f"error{machine.share.rank}").write_text(str(error))
        return
    (folder / f"trained{machine.share.rank}").write_text(f"{content_digest(network.state_dict())} {trained}")


if __name__ == "__main__":
    what, target = sys.argv[1], Path(sys.argv[2])
    if what == "equal":
        equal(target)
    else:
        train(target, *{"train": (), "stopped": (7,), "lost": (7, signal.SIGKILL)}[what])
