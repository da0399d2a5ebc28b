"""The gates learn as in FBNetV2's DMaskingNAS: by the gradient through soft masks (sections 3.1 and 3.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from dmask_mobile.data.batches import num_batches
from dmask_mobile.search.parts import SearchParts, check_gradient
from dmask_mobile.supernet.gates import Gates
from dmask_mobile.training.checks import Agreed


class SoftGates:
    """Draws Gumbel-softmax gates for every step; in gate steps the gradient flows through them to the logits."""

    def __init__(self, parts: SearchParts) -> None:
        self.parts = parts
        resolutions = parts.supernet.space.input.resolutions
        self.sampled = parts.settings.resolution_mode == "sampled" and len(resolutions) > 1
        steps_a_pass = num_batches(parts.for_gates, parts.settings.batch_size)
        self.num_steps = steps_a_pass * -(-parts.settings.min_gate_steps // (parts.num_gate_epochs * steps_a_pass))

    @property
    def temperature(self) -> float:
        """The temperature of the Gumbel softmax in this epoch."""
        epochs = self.parts.num_gate_epochs
        return self.parts.settings.schedule.temperature(max(0, self.parts.gate_epoch) / max(1, epochs - 1))

    @torch.no_grad()
    def draw(self) -> Gates:
        """The gates of the next weight step."""
        return self.parts.moved(self._draw()[0])

    def steps(self) -> Iterator[Agreed]:
        """Runs the remaining gate steps of this epoch and yields the result of each."""
        parts, state = self.parts, self.parts.state
        done = len(state.gate_steps)
        loaded = parts.gate_batches(parts.settings.batch_size, done)
        for batch in itertools.islice(loaded, self.num_steps - done):
            target_entropy = parts.target_entropy((len(state.gate_steps) + 1) / self.num_steps)
            gates, drawn = self._draw()
            cross_entropy, agreed = parts.judge(parts.moved(gates), batch)
            if drawn is not None:
                cross_entropy = state.resolution.with_score(cross_entropy, agreed.loss, state.logits, drawn)
            loss = parts.loss(cross_entropy, state.logits, target_entropy)
            state.logits.logits.grad = parts.machine.gradient(loss, state.logits.logits)
            check_gradient(state.logits.logits.grad, state.epoch, len(state.gate_steps))
            state.gate_optimizer.step()
            yield agreed

    def finish_epoch(self) -> None:
        """Does nothing: the gates have learned in every step."""

    def metrics(self) -> dict[str, Any]:
        """The temperature and the state of the controllers after the epoch."""
        return {"temperature": self.temperature, "control": self.parts.loss.state()}

    def _draw(self) -> tuple[Gates, int | None]:
        """Gates for one step, and the index of the drawn resolution (None if none was drawn)."""
        state = self.parts.state
        gates = state.logits.sample(self.temperature, state.noise)
        return state.resolution.draw(gates, state.logits, state.noise) if self.sampled else (gates, None)
