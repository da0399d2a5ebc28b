from __future__ import annotations

from pathlib import Path

from dmask_mobile import api
from dmask_mobile.costs.counts import Macs

SPACE = Path(__file__).parents[2] / "examples" / "photographs_96.yaml"


def test_the_space_reaches_the_budget_that_the_documentation_names() -> None:
    space = api.load_space(str(SPACE))
    assert space.resolution == 96
    low, high = Macs().on(space).reachable()
    assert low < 8e6 < high
