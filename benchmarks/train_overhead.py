"""Our training loop against a bare PyTorch loop, and how long each waits for data; same model, data and transforms.

    python benchmarks/train_overhead.py [--json] [--photographs DIR] [--rounds 5]

In memory: 4,000 images of 32 px, the widest child of ``mobilenet_small`` at 32 px, an epoch a round, the two loops in
turn; the ratio is the median over rounds of bare time by our time (1 means no overhead). The bare loop holds its
images in a tensor and does what the recipe ``small`` does: shifts, label smoothing, Nesterov momentum, moving average.
Waiting is the time in which the loop has asked for a batch and has none yet, preparing it included. From disk: a folder
of photographs at 160 px, none of them kept in memory, read by one worker.
Writes ``benchmarks/results/train_overhead.json``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import keep
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from dmask_mobile.data.images import ImageData, ImageSet
from dmask_mobile.data.load import load_data
from dmask_mobile.nets.build import build
from dmask_mobile.records.data import DataOptions
from dmask_mobile.records.space import load_space
from dmask_mobile.training import train as training
from dmask_mobile.training.checks import Agreement
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer, TrainSettings

SETTINGS = TrainSettings(epochs=100, batch_size=128)
NUM_IMAGES, SIZE, CLASSES = 4000, 32, 10


def random_data() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    examples = ImageSet.in_memory(pixels, torch.arange(NUM_IMAGES) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    return ImageData("random", "random", names, examples, examples, (0.5,) * 3, (0.3,) * 3, False)


def network_at(size: int) -> nn.Module:
    space = load_space("mobilenet_small").with_classes(CLASSES)
    return build(space.child(space.largest()))


class BareLoop:
    """What a user would write for one model and one data set."""

    def __init__(self, data: ImageData) -> None:
        self.images, self.labels = data.train.pixels(), data.train.labels
        self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (data.mean, data.std))
        self.network = network_at(SIZE).to(memory_format=torch.channels_last).train()
        decayed = [p for p in self.network.parameters() if p.dim() > 1]
        others = [p for p in self.network.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": SETTINGS.weight_decay}, {"params": others}]
        self.optimizer = torch.optim.SGD(groups, lr=SETTINGS.learning_rate, momentum=0.9, nesterov=True)
        self.averaged = ModelEmaV3(self.network, decay=0.998, use_warmup=True)
        self.steps = 0

    def batch(self, chosen: Tensor) -> Tensor:
        count, most = len(chosen), SIZE // 8
        shifts = torch.randint(-most, most + 1, (2, count, 1))
        rows, columns = (torch.arange(SIZE) + shifts).clamp(0, SIZE - 1)
        picked = self.images[chosen]
        shifted = picked[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None],
                         rows[:, None, :, None], columns[:, None, None, :]]  # fmt: skip
        return ((shifted.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def epoch(self) -> None:
        for chosen in torch.randperm(len(self.images)).split(SETTINGS.batch_size)[:-1]:
            scores = self.network(self.batch(chosen))
            loss = F.cross_entropy(scores, self.labels[chosen], label_smoothing=SETTINGS.label_smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            loss.item()  # every loop looks at its loss
            self.optimizer.step()
            self.steps += 1
            self.averaged.update(self.network, self.steps)


class Waiting:
    """Counts the time that the training loop waits for batches."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.made = training.batches
        training.batches = self.timed  # type: ignore[assignment]

    def timed(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        iterator = self.made(*arguments, **options)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def our_epoch(trainer: Trainer) -> None:
    trainer.state.step = 0
    for _ in trainer.train_epoch(Agreement(trainer.machine, lambda: None)):
        pass
    trainer.state.epoch, trainer.state.step = trainer.state.epoch + 1, 0


def clocked(work: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def in_memory(rounds: int, waiting: Waiting) -> dict[str, Any]:
    data = random_data()
    bare, ours = BareLoop(data), Trainer(network_at(SIZE), data, SETTINGS, Machine())
    bare.epoch()
    our_epoch(ours)
    waiting.seconds = 0.0
    pairs = [(clocked(bare.epoch), clocked(our_epoch, ours)) for _ in range(rounds)]
    total = sum(own for _, own in pairs)
    return {
        "ratio": statistics.median(theirs / own for theirs, own in pairs),
        "ratios": [theirs / own for theirs, own in pairs],
        "ms_per_image": 1e3 * total / rounds / NUM_IMAGES,
        "waiting_share": waiting.seconds / total,
    }


def from_disk(folder: str, waiting: Waiting, size: int = 160) -> dict[str, Any]:
    data = load_data(f"folder:{folder}", size, DataOptions(memory_bytes=0, workers=1))
    few = data.train.subset(torch.randperm(len(data.train))[:1500])
    trainer = Trainer(network_at(size), ImageData(**{**data.__dict__, "train": few}), SETTINGS, Machine())
    waiting.seconds = 0.0
    seconds = clocked(our_epoch, trainer)
    return {
        "num_images": len(few),
        "ms_per_image": 1e3 * seconds / len(few),
        "waiting_share": waiting.seconds / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photographs", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    waiting = Waiting()
    result: dict[str, Any] = {"threads": 1, "in_memory_32px": in_memory(options.rounds, waiting)}
    print("in memory, 32 px:", result["in_memory_32px"])
    if options.photographs:
        result["from_disk_160px_one_worker"] = from_disk(str(options.photographs), waiting)
        print("from disk, 160 px:", result["from_disk_160px_one_worker"])
    keep("train_overhead", result, options.json)


if __name__ == "__main__":
    main()
