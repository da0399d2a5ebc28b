"""Custom costs: their errors contain their name, and their results are checked."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import Any

import pytest

from dmask_mobile import api
from dmask_mobile.costs.counts import Macs
from dmask_mobile.costs.custom import CustomSpaceCost, checked_cost
from dmask_mobile.costs.memory import PeakActivationBytes
from dmask_mobile.costs.model import AdditiveCost
from dmask_mobile.costs.values import Correction
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.block import BlockSpec
from tests.dmask_mobile.small import SPACE

CHILD = SPACE.child(SPACE.largest())


class Fixed(AdditiveCost):
    """A cost in which every block has the given value; a callable is called."""

    name, unit = "fixed", "points"

    def __init__(self, value: Any, line: Any = Correction()) -> None:  # noqa: B008 - a tuple
        self.value = value
        self.line = line

    def block_cost(self, block: BlockSpec, in_size: int) -> float:
        return self.value() if callable(self.value) else self.value  # type: ignore[no-any-return]

    def correction(self, resolution: int) -> Correction:
        return self.line  # type: ignore[no-any-return]


def fail() -> float:
    raise KeyError("unknown kernel")


@pytest.mark.parametrize("use", [lambda cost: cost.on(SPACE), lambda cost: cost.estimate(CHILD)])
def test_an_exception_names_the_cost_the_block_and_itself(use: Any) -> None:
    with pytest.raises(
        DmaskError,
        match=r"custom cost 'fixed': block_cost of conv k3 s2 3->\d+ .* at 16 px raised KeyError: 'unknown kernel'; ",
    ) as error:
        use(Fixed(fail))
    shown = "".join(traceback.format_exception(error.value))
    assert "in fail" in shown  # what --debug prints


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, None, "3", True])
def test_a_block_cost_is_a_finite_number_of_at_least_0(value: Any) -> None:
    with pytest.raises(DmaskError, match=r"block_cost of .* must return a finite number >= 0, got "):
        Fixed(value).on(SPACE)


@pytest.mark.parametrize(
    "line", [Correction(0, 0), Correction(0, -1), Correction(math.nan, 1), Correction(0, math.inf)]
)
def test_a_correction_rises(line: Correction) -> None:
    with pytest.raises(DmaskError, match=r"correction at 16 px must have a finite offset and a scale > 0, got"):
        Fixed(1.0, line).on(SPACE)


def test_a_cost_that_behaves_is_the_sum_of_its_blocks() -> None:
    assert Fixed(2).estimate(CHILD).value == 2 * len(CHILD.blocks)
    assert Fixed(2).on(SPACE).cost(SPACE.largest()) == 2 * len(CHILD.blocks)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", r"custom cost 'mine:Cost': loading it raised ZeroDivisionError: division by zero"),
        ("def", r"custom cost 'mine:Cost': loading it raised SyntaxError"),
        ("raise SystemExit(0)", r"custom cost 'mine:Cost': loading it raised SystemExit: 0"),
        ("class Cost: ...", r"must be a subclass of dmask_mobile\.costs\.model\.AdditiveCost"),
        ("{head}    def __init__(self, x): ...", r"custom cost 'Cost': making it without arguments raised TypeError"),
        ("{head}    pass", r"custom cost 'Cost': making it without arguments raised TypeError: .*abstract"),
        (
            "{head}    def block_cost(self, block, in_size): return 1.0",
            r"cost 'mine:Cost' must have a name that is a string",
        ),
    ],
)
def test_a_cost_that_does_not_load(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "from dmask_mobile.costs.model import AdditiveCost\nclass Cost(AdditiveCost):\n"
    (tmp_path / "mine.py").write_text(source.format(head=head))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    with pytest.raises(DmaskError, match=message):
        api.load_cost("mine:Cost")


def test_built_in_costs_are_not_wrapped_and_incomplete_ones_are_refused() -> None:
    for model in (Macs(), PeakActivationBytes()):
        cost = model.on(SPACE)
        assert checked_cost(cost) is cost
    with pytest.raises(DmaskError, match=r"custom cost 'object' has no 'space'"):
        CustomSpaceCost(object())  # type: ignore[arg-type]
