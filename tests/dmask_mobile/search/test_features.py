from __future__ import annotations

import math
import random

import numpy as np
import pytest

from dmask_mobile.costs.counts import Macs
from dmask_mobile.search.features import Features, capacity_of
from tests.dmask_mobile.small import SPACE

FEATURES = Features(SPACE)


def test_a_child_has_one_option_for_each_decision_that_is_not_inside_a_skipped_block() -> None:
    generator = random.Random(0)
    for choice in (SPACE.sample(generator) for _ in range(50)):
        parts = FEATURES.split(FEATURES.of(choice))
        for decision, part in enumerate(parts):
            skip = FEATURES.skips.get(decision)
            inside = skip is not None and bool(choice[skip])
            assert part.tolist() == [float(not inside and option == choice[decision]) for option in range(len(part))]


def test_sizes_rise_with_their_logarithm() -> None:
    parts = FEATURES.split(FEATURES.alike("width"))
    for decision, part in zip(SPACE.decisions, parts, strict=True):
        logs = np.log(decision.options) if decision.kind == "width" else np.zeros(len(decision.options))
        assert part == pytest.approx(logs - logs.mean())


def test_capacity_tells_the_multiply_adds_of_a_block() -> None:
    """Of children that the linear model was not fitted to."""
    generator, macs = random.Random(1), Macs().on(SPACE)
    choices = [SPACE.sample(generator) for _ in range(300)]
    blocks = [sum(1 for slot in SPACE.slots if slot.skip is None or not choice[slot.skip]) for choice in choices]
    truth = [math.log(macs.cost(choice) / count) for choice, count in zip(choices, blocks, strict=True)]
    fitted = [FEATURES.of(choice) @ capacity_of(SPACE) for choice in choices]
    slope, _ = np.polyfit(fitted, truth, 1)
    assert slope == pytest.approx(1, abs=0.1)
    assert np.corrcoef(fitted, truth)[0, 1] > 0.9
