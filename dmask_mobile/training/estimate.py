"""Estimates durations from two steps of each kind at the real shapes; nothing is written."""

from __future__ import annotations

import itertools
import resource
import sys
import time
from collections.abc import Iterator

import torch

from dmask_mobile.records.estimate import Estimate, StepEstimate
from dmask_mobile.training.checks import Agreed, Agreement
from dmask_mobile.training.evaluation import chunks_of, evaluate
from dmask_mobile.training.machine import Machine
from dmask_mobile.training.train import Trainer


def timed(kind: str, num_steps: int, steps: Iterator[Agreed], timed_steps: int = 1) -> StepEstimate:
    """The mean time of some steps after the first one, which includes loading and compiling."""
    seconds = 0.0
    for part in (1, timed_steps):
        start = time.perf_counter()
        if done := sum(1 for _ in itertools.islice(steps, part)):
            seconds = (time.perf_counter() - start) / done
    return StepEstimate(kind=kind, num_steps=num_steps, seconds_per_step=seconds)


def estimate_of(steps: list[StepEstimate], machine: Machine) -> Estimate:
    """The estimate made from the steps of this process."""
    return Estimate(
        device=machine.device.type,
        num_processes=machine.share.processes,
        steps=tuple(steps),
        peak_memory_bytes=machine.peak_memory_bytes() or _peak_resident_bytes(),
    )


def estimate_training(trainer: Trainer) -> Estimate:
    """Estimates the duration of a training from two optimizer steps and one batch of the validation images."""
    epochs, machine, data = trainer.settings.epochs, trainer.machine, trainer.data
    agreement = Agreement(machine, lambda: None)
    plain = epochs if trainer.quantized is None else trainer.settings.plain_epochs
    training = [timed("training", plain * trainer.steps, trainer.train_epoch(agreement))]
    if trainer.quantized is not None:
        trainer.state.epoch, trainer.state.step = plain, 0
        training.append(timed("int8 training", (epochs - plain) * trainer.steps, trainer.train_epoch(agreement)))
    chunks = chunks_of(data.val, data)
    few = data.val.subset(torch.arange(len(chunks[0])))
    start = time.perf_counter()
    evaluate(trainer.state.network, few, data, machine=machine)
    seconds = time.perf_counter() - start
    num_steps = epochs * -(-len(chunks) // machine.share.processes)
    validation = StepEstimate(kind="validation", num_steps=num_steps, seconds_per_step=seconds)
    return estimate_of([*training, validation], machine)


def _peak_resident_bytes() -> int:
    """The peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
