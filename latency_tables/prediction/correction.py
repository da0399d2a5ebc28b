"""From sums of blocks to whole networks: what isolated blocks miss, learned from networks measured on the device.

``latency = a_r + b_r * sum over blocks of (t_block - o - p m_block + q w_block)``, one rising line for each resolution
r. A block measured alone pays for being called (``o``) and for bringing its maps into and out of the runtime's own
layout (``p`` for each of the ``m`` million values of its input and output); inside a network it does not. There its
``w`` megabytes of weights come from memory (``q``), while alone they stay in the cache from run to run. All of it is
fitted to *relative* errors; the line of a resolution is drawn towards the one of all resolutions, the more so the fewer
networks it has. Networks far from the fit count less (Huber's weights): other work may have disturbed them.

Simpler corrections are tried as well, down to none. The one with the smallest error on networks that were left out of
its fit is taken, so that corrections never make the predictions of a table worse than the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from dmask_mobile.costs.values import Correction

PRIOR_NETWORKS = 2.0  # so many networks the common line counts for in the line of one resolution
MIN_NETWORKS = 3  # in all
MIN_NETWORKS_FOR_CONTEXT = 12
MIN_SHARE = 0.2  # of its own latency: what a block counts for at least
HUBER, REWEIGHTINGS = 1.345, 4  # standard deviations from which on a residual counts less (Huber, 1964)
TRIMMED_SHARE = 0.1  # of the largest errors, which do not count in a choice: disturbed networks
Lines = Literal["by resolution", "common", "ratio", "none"]


class Part(NamedTuple):
    """A block by itself: milliseconds, millions of values in its input and output, megabytes of weights."""

    ms: float
    moved: float
    weights_mb: float


class Context(NamedTuple):
    """How a block differs inside a network from one measured alone, in milliseconds.

    Less for a call and for each million values moved, more for each megabyte of weights.
    """

    call_ms: float = 0.0
    moved_ms: float = 0.0
    weights_ms: float = 0.0

    def of(self, part: Part) -> float:
        """What a block adds to a network."""
        saved = self.call_ms + self.moved_ms * part.moved
        return max(MIN_SHARE * part.ms, part.ms - saved + self.weights_ms * part.weights_mb)


class WholeNetwork(NamedTuple):
    """A measured network and its blocks by themselves."""

    resolution: int
    parts: tuple[Part, ...]
    measured_ms: float

    @property
    def sum_ms(self) -> float:
        """Of the blocks by themselves."""
        return sum(part.ms for part in self.parts)

    def sum_in(self, context: Context) -> float:
        """The sum of what the blocks add to a network."""
        return sum(context.of(part) for part in self.parts)


class Form(NamedTuple):
    """What a correction has: coefficients of the context or none, and which lines."""

    with_context: bool
    lines: Lines


FORMS = (  # from the most to the least that is fitted
    Form(True, "by resolution"),
    Form(False, "by resolution"),
    Form(False, "common"),
    Form(False, "ratio"),
    Form(False, "none"),
)


class Corrections(NamedTuple):
    """What changes in context and the lines, with the relative error that is left on networks not used for them.

    ``spread`` is their standard deviation, ``error`` their mean absolute value; both by leaving one network out.
    ``form``: which of the corrections was taken.
    """

    context: Context
    common: Correction
    lines: dict[int, Correction]
    spread: float
    error: float
    form: Form = FORMS[0]

    def at(self, resolution: int) -> Correction:
        """The line of a resolution; the common one where no network of it was measured."""
        return self.lines.get(resolution, self.common)

    def apply(self, network: WholeNetwork) -> float:
        """The predicted latency in milliseconds."""
        return self.at(network.resolution).apply(network.sum_in(self.context))


def fit_corrections(networks: Sequence[WholeNetwork]) -> Corrections:
    """The corrections from whole networks; with fewer than three nothing is known of their error: it is infinite."""
    if len(networks) < MIN_NETWORKS:
        return _fit(networks, FORMS[1])._replace(spread=np.inf, error=np.inf)
    form, residuals = _best_form(networks)
    spread, error = float(np.sqrt(np.mean(np.square(residuals)))), float(np.mean(np.abs(residuals)))
    return _fit(networks, form)._replace(spread=spread, error=error)


def predicted_by_others(networks: Sequence[WholeNetwork]) -> list[float]:
    """The latency of each network in milliseconds, predicted by corrections that were fitted to all the others."""
    measured = np.array([network.measured_ms for network in networks])
    return [float(ms) for ms in (1 + _best_form(networks)[1]) * measured]


def _best_form(networks: Sequence[WholeNetwork]) -> tuple[Form, np.ndarray]:
    """The form with the smallest error on networks left out, and the residual of each; the largest errors aside."""
    forms = FORMS if len(networks) >= MIN_NETWORKS_FOR_CONTEXT else FORMS[1:]
    kept = max(1, len(networks) - int(TRIMMED_SHARE * len(networks)))
    by_form = {form: _residuals_left_out(networks, form) for form in forms}
    # Rounded, so that of forms that are equally good the first one is taken.
    form = min(forms, key=lambda form: round(float(np.sort(np.abs(by_form[form]))[:kept].mean()), 9))
    return form, by_form[form]


def _residuals_left_out(networks: Sequence[WholeNetwork], form: Form) -> np.ndarray:
    """Predicted / measured - 1 of each network, predicted by corrections that were fitted to all the others."""
    predicted = [
        _fit([*networks[:index], *networks[index + 1 :]], form).apply(left_out)
        for index, left_out in enumerate(networks)
    ]
    residuals: np.ndarray = np.array(predicted) / np.array([network.measured_ms for network in networks]) - 1
    return residuals


def common_line(networks: Sequence[WholeNetwork]) -> Correction:
    """One line for all networks and nothing else: what most tables are corrected by, for comparison."""
    sums, measured = (np.array([getattr(n, field) for n in networks], float) for field in ("sum_ms", "measured_ms"))
    return _common(sums, measured)


def _fit(networks: Sequence[WholeNetwork], form: Form) -> Corrections:
    if not networks:
        return Corrections(Context(), Correction(), {}, 0.0, 0.0)
    context = _context(networks) if form.with_context else Context()
    sums = np.array([network.sum_in(context) for network in networks])
    measured = np.array([network.measured_ms for network in networks])
    ratio = Correction(0.0, float(np.median(measured / sums)))
    common = {"none": Correction(), "ratio": ratio}.get(form.lines) or _common(sums, measured)
    lines = {}
    for resolution in sorted({network.resolution for network in networks}):
        here = np.array([network.resolution == resolution for network in networks])
        by_itself = form.lines == "by resolution"
        lines[resolution] = _line(sums[here], measured[here], common, PRIOR_NETWORKS) if by_itself else common
    return Corrections(context, common, lines, 0.0, 0.0, form)


def _common(sums: np.ndarray, measured: np.ndarray) -> Correction:
    """The line of all networks; the median ratio where they are too few or too similar for one."""
    return _line(sums, measured, Correction(0.0, float(np.median(measured / sums))), prior=0.0)


def _robust(
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray], design: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The solution of ``design @ x = wanted`` in which rows far from it count less, by Huber's weights.

    Args:
        solve: the least-squares solution for a design and what is wanted.
        design: (rows, coefficients).
        wanted: (rows,).
    """
    found = solve(design, wanted)
    for _ in range(REWEIGHTINGS):
        residuals = np.abs(design @ found - wanted)
        scale = 1.4826 * float(np.median(residuals))
        if scale < 1e-9:
            break
        roots = np.sqrt(np.minimum(1.0, HUBER * scale / np.maximum(residuals, 1e-300)))
        found = solve(design * roots[:, None], wanted * roots)
    return found


def _context(networks: Sequence[WholeNetwork]) -> Context:
    """The coefficients of the number of blocks, of what they move and of their weights, each of its own sign."""
    rows = [
        (1.0, n.sum_ms, -len(n.parts), -sum(p.moved for p in n.parts), sum(p.weights_mb for p in n.parts))
        for n in networks
    ]
    measured = np.array([network.measured_ms for network in networks])
    design = np.array(rows)
    used = [0, 1, *(column for column in (2, 3, 4) if np.ptp(design[:, column]) > 0)]
    lowest = np.array([-np.inf, 1e-9, 0.0, 0.0, 0.0])[used]

    def solve(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        solution: np.ndarray = lsq_linear(rows, wanted, (lowest, np.inf)).x
        return solution

    found = _robust(solve, design[:, used] / measured[:, None], np.ones_like(measured))
    by_column = dict(zip(used, found / found[1], strict=True))
    return Context(*(float(by_column.get(column, 0.0)) for column in (2, 3, 4)))


def _line(sums: np.ndarray, measured: np.ndarray, towards: Correction, prior: float) -> Correction:
    """The rising line with the least relative error, drawn towards another one; networks far from it count less.

    A line that does not rise (too few or too similar networks) gives way to that one.
    """
    design = np.stack([np.ones_like(sums), sums], 1) / measured[:, None]
    wanted = np.ones_like(measured)
    if prior:
        # Pseudo-networks on the other line, at the ends of what was measured here.
        ends = np.array([sums.min(), sums.max()])
        on_line = towards.offset + towards.scale * ends
        weight = np.sqrt(prior / 2)
        design = np.concatenate([design, weight * np.stack([np.ones(2), ends], 1) / on_line[:, None]])
        wanted = np.concatenate([wanted, np.full(2, weight)])
    elif len(sums) < MIN_NETWORKS or np.ptp(sums) == 0:
        return towards
    offset, scale = _robust(_least_squares, design, wanted)
    return Correction(float(offset), float(scale)) if scale > 0 else towards


def _least_squares(design: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    solution: np.ndarray = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return solution
