"""Pictures of tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmask_mobile.errors import DmaskError
from dmask_mobile.pictures import save_picture
from latency_tables.prediction.latency_model import LatencyModel
from latency_tables.profiling.judging import Evaluation
from latency_tables.table.table import LatencyTable

if TYPE_CHECKING:
    pass


def plot_evaluation(evaluation: Evaluation, path: Path, title: str = "") -> None:
    """Predicted against measured latency of children that the table never saw, one colour a resolution.

    Raises:
        DmaskError: as `check_picture`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    judged = evaluation.judged()
    highest = max(child.measured_ms for child in judged) * 1.05
    axes.plot([0, highest], [0, highest], color="grey", linewidth=0.8)
    axes.fill_between([0, highest], [0, 0.9 * highest], [0, 1.1 * highest], color="grey", alpha=0.15, label="± 10%")
    for resolution in sorted({child.child.resolution for child in judged}):
        of_size = [child for child in judged if child.child.resolution == resolution]
        axes.scatter(
            [c.measured_ms for c in of_size], [c.predicted_ms for c in of_size], s=14, label=f"{resolution} px"
        )
    axes.set(xlabel="measured (ms)", ylabel="predicted (ms)", xlim=(0, highest), ylim=(0, highest))
    axes.set_title(
        title or f"{evaluation.num_children} unseen children: mean error {evaluation.mape:.1%},"
        f" repeatability {evaluation.repeatability_mape:.1%}",
        fontsize=10,
    )  # fmt: skip
    axes.legend(fontsize=8)
    save_picture(figure, path)


def width_grid(table: LatencyTable) -> tuple[list[int], list[int], np.ndarray]:
    """How many inverted residuals were measured for each input and output width: widths in, widths out, counts."""
    pairs = [(block.in_width, block.out_width) for block, _ in table.blocks if block.kind == "inverted_residual"]
    ins, outs = (sorted({pair[index] for pair in pairs}) for index in (0, 1))
    counts = np.zeros((len(ins), len(outs)), int)
    for c_in, c_out in pairs:
        counts[ins.index(c_in), outs.index(c_out)] += 1
    return ins, outs, counts


def plot_table(table: LatencyTable, path: Path) -> None:
    """What a table covers (blocks by width) and how its whole networks lie around their predictions.

    Raises:
        DmaskError: as `check_picture`, for a table without measured blocks, and when blocks of its networks were
            neither measured nor can be predicted.
    """
    from matplotlib.figure import Figure

    if not table.blocks:
        raise DmaskError(f"'{table.source}' holds no measured block to draw", "finish it: dmask profile SPACE -o TABLE")
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    coverage, networks = figure.subplots(1, 2)
    ins, outs, counts = width_grid(table)
    if counts.size:
        image = coverage.imshow(np.where(counts > 0, counts, np.nan), aspect="auto", origin="lower", cmap="viridis")
        figure.colorbar(image, ax=coverage)
    _label(coverage, outs, ins)
    coverage.set(xlabel="output width", ylabel="input width", title="inverted residuals measured")
    model = LatencyModel(table)
    whole = model.whole_networks()
    predicted = [model.corrections.apply(network) for network in whole]
    networks.scatter([network.measured_ms for network in whole], predicted, s=14)
    highest = max([*predicted, *(network.measured_ms for network in whole), 0.0]) * 1.05
    networks.plot([0, highest], [0, highest], color="grey", linewidth=0.8)
    networks.set(
        xlabel="measured (ms)", ylabel="predicted (ms)",
        title=f"whole networks: {_error_in_words(model)}",
    )  # fmt: skip
    save_picture(figure, path)


def _error_in_words(model: LatencyModel) -> str:
    error = model.corrections.error
    return f"mean error {error:.1%} (each left out in turn)" if np.isfinite(error) else "too few to tell an error"


def _label(axes: object, columns: Sequence[int], rows: Sequence[int]) -> None:
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)  # type: ignore[attr-defined]
    axes.set_yticks(range(len(rows)), rows, fontsize=7)  # type: ignore[attr-defined]
