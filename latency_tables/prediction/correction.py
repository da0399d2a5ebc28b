"""Corrects sums of blocks to latencies of whole networks; the correction is fitted to measured networks.

``latency = a + b * sum over blocks of (t_block - o - p m_block + q w_block)``, a rising line; one for each resolution
where that is clearly better. The latency of a block that is measured alone includes the call (``o``) and the conversion
of its maps to and from the runtime's own layout (``p`` for each of the ``m`` million values of its input and output).
Inside a network it does not. There, its ``w`` megabytes of weights come from memory (``q``), while for a block alone
they stay in the cache between runs. Everything is fitted to *relative* errors. The line of a resolution is regularized
towards the line of all resolutions, more strongly if it has fewer networks. Networks far from the fit have less weight
(Huber), because other work may have disturbed them.

Other corrections are also tried, down to none, so that corrections do not make the predictions of a table worse than
the plain sum: one whose error on networks that were left out of its fit is clearly smaller is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from dmask_mobile.costs.values import Correction

PRIOR_NETWORKS = 2.0  # the weight of the common line, in networks, in the line of one resolution
MIN_NETWORKS = 3  # in all
MIN_NETWORKS_FOR_CONTEXT = 7
MIN_SHARE = 0.2  # the least contribution of a block, as a share of its own latency
HUBER, REWEIGHTINGS = 1.345, 4  # standard deviations beyond which a residual has less weight (Huber, 1964)
TRIMMED_SHARE = 0.1  # of the networks with the largest errors or differences of errors: they may have been disturbed
SCATTERED = 0.1  # mean error from which networks were so disturbed that they say little about the context
CLEARLY = 2.0  # standard errors by which the error of another form must be smaller
Lines = Literal["by resolution", "common", "ratio", "none"]


class Part(NamedTuple):
    """A block alone: milliseconds, millions of values in its input and output, megabytes of weights."""

    ms: float
    moved: float
    weights_mb: float


class Context(NamedTuple):
    """How the latency of a block inside a network differs from a block measured alone, in milliseconds.

    It is lower for the call and for each million values moved, and higher for each megabyte of weights.
    """

    call_ms: float = 0.0
    moved_ms: float = 0.0
    weights_ms: float = 0.0

    def of(self, part: Part) -> float:
        """The milliseconds that a block adds to a network."""
        saved = self.call_ms + self.moved_ms * part.moved
        return max(MIN_SHARE * part.ms, part.ms - saved + self.weights_ms * part.weights_mb)


class WholeNetwork(NamedTuple):
    """A measured network, and its blocks measured alone."""

    resolution: int
    parts: tuple[Part, ...]
    measured_ms: float

    @property
    def sum_ms(self) -> float:
        """The sum of the blocks measured alone."""
        return sum(part.ms for part in self.parts)

    def sum_in(self, context: Context) -> float:
        """The sum of the milliseconds that the blocks add to a network."""
        return sum(context.of(part) for part in self.parts)


class Form(NamedTuple):
    """The form of a correction: whether it has coefficients of the context, and which lines."""

    with_context: bool
    lines: Lines


FORMS = (  # from the most to the least that is fitted
    Form(True, "by resolution"),
    Form(True, "common"),
    Form(False, "by resolution"),
    Form(False, "common"),
    Form(False, "ratio"),
    Form(False, "none"),
)
USUAL = Form(True, "common")


class Corrections(NamedTuple):
    """The coefficients of the context and the lines, with the relative error on networks that were not used for them.

    ``spread`` is the standard deviation and ``error`` the mean absolute value of these errors, both by leaving one
    network out. ``form``: the form of the correction.
    """

    context: Context
    common: Correction
    lines: dict[int, Correction]
    spread: float
    error: float
    form: Form = Form(True, "common")

    def at(self, resolution: int) -> Correction:
        """The line of a resolution; the common line if no network with this resolution was measured."""
        return self.lines.get(resolution, self.common)

    def apply(self, network: WholeNetwork) -> float:
        """The predicted latency in milliseconds."""
        return self.at(network.resolution).apply(network.sum_in(self.context))


def fit_corrections(networks: Sequence[WholeNetwork]) -> Corrections:
    """The corrections from whole networks; with fewer than three networks the error is unknown and set to infinity."""
    if len(networks) < MIN_NETWORKS:
        return _fit(networks, Form(False, "common"))._replace(spread=np.inf, error=np.inf)
    form, residuals = _best_form(networks)
    spread, error = float(np.sqrt(np.mean(np.square(residuals)))), float(np.mean(np.abs(residuals)))
    return _fit(networks, form)._replace(spread=spread, error=error)


def predicted_by_others(networks: Sequence[WholeNetwork]) -> list[float]:
    """The latency of each network in milliseconds, predicted by corrections that were fitted to all other networks."""
    measured = np.array([network.measured_ms for network in networks])
    return [float(ms) for ms in (1 + _best_form(networks)[1]) * measured]


def _best_form(networks: Sequence[WholeNetwork]) -> tuple[Form, np.ndarray]:
    """The form of the correction, and the residual of each network by corrections that were fitted to the others.

    It is the context with one line, because every runtime has a context. With too few or too scattered networks for
    that it is the form with the smallest error on left-out networks. A few networks choose badly, so another form, such
    as lines by resolution, must be clearly better.
    """
    enough = len(networks) >= MIN_NETWORKS_FOR_CONTEXT
    residuals = {form: _residuals_left_out(networks, form) for form in FORMS if enough or not form.with_context}
    errors = {form: np.abs(found) for form, found in residuals.items()}
    trimmed = int(TRIMMED_SHARE * len(networks))
    kept = max(1, len(networks) - trimmed)

    def error_of(form: Form) -> float:
        return round(
            float(np.sort(errors[form])[:kept].mean()), 9
        )  # so that the first of several equally good ones wins

    usual = USUAL
    if not enough or error_of(USUAL) > SCATTERED:
        usual = min((form for form in errors if form.lines != "by resolution"), key=error_of)
    other = min((form for form in errors if form != usual), key=error_of)
    gain, error = _trimmed_mean(errors[usual] - errors[other], trimmed)
    form = other if gain > CLEARLY * error else usual
    return form, residuals[form]


def _trimmed_mean(values: np.ndarray, trimmed: int) -> tuple[float, float]:
    """The mean without so many values at each end, and its standard error (Tukey and McLaughlin, 1963)."""
    ordered, count = np.sort(values), len(values)
    middle = ordered[trimmed : count - trimmed]
    winsorized = np.clip(ordered, middle[0], middle[-1])
    error = winsorized.std(ddof=1) / ((1 - 2 * trimmed / count) * np.sqrt(count))
    return float(middle.mean()), float(error)


def _residuals_left_out(networks: Sequence[WholeNetwork], form: Form) -> np.ndarray:
    """Predicted / measured - 1 of each network, predicted by corrections that were fitted to all other networks."""
    predicted = [
        _fit([*networks[:index], *networks[index + 1 :]], form).apply(left_out)
        for index, left_out in enumerate(networks)
    ]
    residuals: np.ndarray = np.array(predicted) / np.array([network.measured_ms for network in networks]) - 1
    return residuals


def common_line(networks: Sequence[WholeNetwork]) -> Correction:
    """Only one line for all networks, as most other tables are corrected; used for comparison."""
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
    """The line of all networks; the median ratio if they are too few or too similar for a line."""
    return _line(sums, measured, Correction(0.0, float(np.median(measured / sums))), prior=0.0)


def _robust(
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray], design: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The solution of ``design @ x = wanted`` in which rows with large residuals have less weight (Huber).

    Args:
        solve: a function that returns the least-squares solution for a design and a right-hand side.
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
    """The coefficients of the number of blocks, of the values they move and of their weights, each with its sign."""
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
    """The rising line with the least relative error, regularized towards another line; outliers have less weight.

    If the line does not rise (too few or too similar networks), the other line is returned.
    """
    design = np.stack([np.ones_like(sums), sums], 1) / measured[:, None]
    wanted = np.ones_like(measured)
    if prior:
        # Pseudo-networks on the other line, at the ends of the measured range.
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
