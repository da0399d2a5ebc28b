"""Reads a `SearchHistory` from ``search/metrics.jsonl``, which has a line for each epoch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.files import read_text
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.report.records import Curve, GateView, SearchHistory

MIN_EPOCHS, MAX_EPOCHS = 10, 60  # epochs that are drawn
MAX_POINTS = 40_000  # in the pictures of all gates; a page of 2 MB has space for about 100,000


class _Epoch(BaseModel):
    """One line of the log; keys that are not drawn are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int
    weights: dict[str, float | None] = {}
    gates: dict[str, float | None] = {}
    expected: dict[str, float | None] = {}
    budgets: dict[str, float | None] = {}
    control: dict[str, Any] = {}
    entropy: float | None = None
    probabilities: dict[str, tuple[float | None, ...]] = {}
    warnings: tuple[str, ...] = ()


def read_history(
    path: Path, space: SearchSpace, choice: Choice | None, settings: Mapping[str, Any] | None
) -> SearchHistory | None:
    """The content of the log ``path``; None if there is no log or it has no complete line.

    Args:
        path: ``metrics.jsonl``.
        space: the space that was searched.
        choice: the choice of the search, if it has finished.
        settings: the settings of the search in the run's record.

    Raises:
        DmaskError: naming the first damaged line. The last line may be incomplete, because a search may be writing it.
    """
    epochs = _read(path)
    if not epochs:
        return None
    decisions = [number for number, decision in enumerate(space.decisions) if len(decision.options) > 1]
    num_options = sum(len(space.decisions[number].options) for number in decisions)
    drawn = _evenly(epochs, max(MIN_EPOCHS, min(MAX_EPOCHS, MAX_POINTS // max(1, num_options))))
    gates, room = [], MAX_POINTS
    for number in decisions:
        room -= len(space.decisions[number].options) * len(drawn)
        if room >= 0:
            gates.append(_gate(space, number, drawn, choice))
    planned, warmup = _length(settings)
    return SearchHistory(
        epochs=tuple(line.epoch for line in drawn),
        num_epochs=len(epochs),
        planned_epochs=planned,
        warmup_epochs=warmup,
        expected=_ratios(drawn),
        multipliers=_multipliers(drawn),
        accuracies=(
            Curve(name="weight steps", values=_finite(line.weights.get("accuracy") for line in drawn)),
            Curve(name="gate steps", values=_finite(line.gates.get("accuracy") for line in drawn)),
        ),
        entropy=(Curve(name="mean gate entropy", values=_finite(line.entropy for line in drawn)),),
        gates=tuple(gates),
        num_gates=len(decisions),
        warnings=tuple(dict.fromkeys(shown(text, 500) for text in epochs[-1].warnings)),
    )


def _read(path: Path) -> list[_Epoch]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DmaskError(
            f"cannot read '{path}': {error}", "restore it, or remove it: the report leaves it out"
        ) from None
    lines, found = text.split("\n"), []
    for number, line in enumerate(lines[:-1], start=1):  # a last line without a line break is incomplete
        try:
            found.append(_Epoch.model_validate(json.loads(line, parse_constant=lambda _: None)))
        except (ValueError, RecursionError) as error:
            reason = describe_validation_error(error) if isinstance(error, ValidationError) else shown(error)
            raise DmaskError(
                f"'{path}', line {number}: {reason}", "restore it, or remove it: the report leaves it out"
            ) from None
    return found


def _evenly(epochs: Sequence[_Epoch], most: int) -> list[_Epoch]:
    """At most ``most`` epochs, including the first and the last."""
    if len(epochs) <= most:
        return list(epochs)
    return [epochs[round(place * (len(epochs) - 1) / (most - 1))] for place in range(most)]


def _gate(space: SearchSpace, number: int, epochs: Sequence[_Epoch], choice: Choice | None) -> GateView:
    decision = space.decisions[number]
    count = len(decision.options)
    by_epoch = [_row(line.probabilities.get(decision.name, ()), count) for line in epochs]
    return GateView(
        name=decision.name,
        kind=decision.kind,
        options=decision.options,
        probabilities=tuple(zip(*by_epoch, strict=True)),
        last=by_epoch[-1],
        chosen=choice[number] if choice is not None else None,
    )


def _row(values: tuple[float | None, ...], count: int) -> tuple[float | None, ...]:
    """The probabilities of one epoch; None if the line does not fit the space."""
    return _finite(values) if len(values) == count else (None,) * count


def _finite(values: Any) -> tuple[float | None, ...]:
    """The numbers that can be drawn; None for NaN and infinity."""
    return tuple(value if value is not None and abs(value) < float("inf") else None for value in values)


def _ratios(epochs: Sequence[_Epoch]) -> tuple[Curve, ...]:
    def ratio(line: _Epoch, name: str) -> float | None:
        value, limit = line.expected.get(name), line.budgets.get(name)
        return value / limit if value is not None and limit else None

    names = dict.fromkeys(name for line in epochs for name in line.expected)
    return tuple(Curve(name=name, values=_finite(ratio(line, name) for line in epochs)) for name in names)


def _multipliers(epochs: Sequence[_Epoch]) -> tuple[Curve, ...]:
    """Lambda of each budget; empty for losses that do not adapt."""

    def number(line: _Epoch, index: int) -> float | None:
        found = line.control.get("multipliers")
        value = found[index] if isinstance(found, list) and index < len(found) else None
        return float(value) if isinstance(value, int | float) else None

    curves = (
        Curve(name=name, values=_finite(number(line, index) for line in epochs))
        for index, name in enumerate(epochs[0].expected)
    )
    return tuple(curve for curve in curves if any(value is not None for value in curve.values))


def _length(settings: Mapping[str, Any] | None) -> tuple[int | None, int | None]:
    """The number of planned epochs and of epochs before the gates learn, if the run's record has them."""
    planned, warmup = ((settings or {}).get(name) for name in ("epochs", "warmup"))
    if not isinstance(planned, int):
        return None, None
    return planned, math.floor(warmup * planned) if isinstance(warmup, int | float) else None
