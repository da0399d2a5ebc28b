"""Input resolutions (FBNetV2, section 3.1, form E)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.supernet.gates import GateLogits
from dmask_mobile.supernet.resolution import spread, subsample
from tests.dmask_mobile.supernet.test_supernet import random_supernet
from tests.strategies import spaces_with_choice


@pytest.mark.parametrize(("full", "size"), [(4, 2), (5, 3), (16, 12)])
def test_subsample_takes_the_floor_of_the_scaled_position(full: int, size: int) -> None:
    x = torch.arange(full * full, dtype=torch.float32).view(1, 1, full, full)
    expected = [[x[0, 0, i * full // size, j * full // size].item() for j in range(size)] for i in range(size)]
    assert subsample(x, size)[0, 0].tolist() == expected


@given(st.integers(1, 24), st.integers(0, 24))
def test_subsample_takes_back_what_spread_did(size: int, extra: int) -> None:
    z = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    wide = spread(z, size + extra)
    assert torch.equal(subsample(wide, size), z)
    assert wide.count_nonzero() == z.count_nonzero()  # everything else is zero


@given(spaces_with_choice())
def test_exact_mode_mixes_each_resolution_run_alone(case: tuple[SearchSpace, Choice]) -> None:
    """The head is linear, so mixing pooled features mixes scores."""
    space, _ = case
    supernet = random_supernet(space, torch.float64).eval()
    logits = GateLogits(space).double()
    with torch.no_grad():
        logits.logits.normal_(generator=torch.Generator().manual_seed(5))
        gates = logits.probabilities()
        x = torch.randn(2, space.input.channels, space.resolution, space.resolution, dtype=torch.float64)
        count = len(gates[0])
        alone = [supernet(x, (F.one_hot(torch.tensor(i), count).double(), *gates[1:])) for i in range(count)]
        mixed = sum(gate * scores for gate, scores in zip(gates[0], alone, strict=True))
        torch.testing.assert_close(supernet(x, gates), mixed, rtol=0, atol=1e-9)
