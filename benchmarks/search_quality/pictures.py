"""Accuracy against measured latency: every training a point, the random children behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search_quality.entries import Entry, Split

MARKERS = {"searched": ("o", "C3"), "searched_macs": ("s", "C1"), "uniform": ("^", "C0"), "capacity": ("*", "C8"),
           "ungated": ("D", "C2"), "evolved": ("v", "C4"), "mobilenetv3-small": ("P", "C5"),
           "mobilenetv3-large": ("X", "C6")}  # fmt: skip
NAMES = {"searched": "search", "searched_macs": "search by multiply-adds", "uniform": "scaled uniformly",
         "capacity": "most capacity, nothing trained", "ungated": "same supernet, random search",
         "evolved": "same supernet, evolution", "random": "random children"}  # fmt: skip
SPLITS = {"val": "validation", "test": "test"}


def draw(entries: Sequence[Entry], split: Split, title: str, path: Path) -> None:
    """Writes ``path`` with the suffixes .png and .svg."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = title  # the same file each time
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for contender in sorted({entry.contender for entry in entries}, key=lambda name: name != "random"):
        own = [entry for entry in entries if entry.contender == contender]
        points = [(entry.ms, 100 * value) for entry in own for value in entry.accuracies(split)]
        marker, colour = MARKERS.get(contender, ("o", "0.75"))
        size = 90 if contender == "random" else 45
        axes.scatter(
            *zip(*points, strict=True), s=size, marker=marker, color=colour, label=NAMES.get(contender, contender)
        )
    axes.set(xlabel="measured latency [ms]", ylabel=f"top-1 on {SPLITS[split]} images [%]", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=120)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)
