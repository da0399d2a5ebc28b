"""The figures of one setting: accuracies, paired differences, percentile, correlation, costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from search_quality.entries import Split, accuracies_of, is_opened
from search_quality.estimates import best_of, difference, percentile, rank_correlation
from search_quality.whole import Outcome

OF_THE_SAME_SUPERNET = ("ungated", "evolved")
OURS = "searched"


def summarized(outcome: Outcome) -> dict[str, Any]:
    """Everything that is published of a setting."""
    bench, entries = outcome.bench, outcome.entries
    splits: tuple[Split, ...] = ("val", "test") if is_opened(entries) else ("val",)
    return {
        "setting": bench.setting.model_dump(mode="json"),
        "search_settings": bench.search.model_dump(mode="json"),
        "train_settings": bench.training(bench.protocol.first_seed).model_dump(mode="json"),
        "images": bench.images["images"],
        "budget_ms": bench.budget_ms,
        "measured": {
            "typical_ms": outcome.session["typical_ms"],
            "noisy": outcome.session["noisy"],
            "disagreement": outcome.session["disagreement"],
            "largest_deviation": max(abs(entry.ratio - 1) for entry in entries),
            "out_of_reach": outcome.left_out,
            "deviations": {entry.key: entry.ratio - 1 for entry in entries},
        },
        "networks": [entry.model_dump(mode="json") for entry in entries],
        "searches": outcome.searches,
        "by_split": {split: by_split(outcome, split) for split in splits},
        "search_cost": search_cost(outcome),
        "evaluations": {
            "ours": [search["evaluations"] for search in outcome.searches],
            "ungated": bench.protocol.ungated.evaluations,
        },
        "core_minutes": {**{k: s / 60 for k, s in outcome.spent.items()}, "all": sum(outcome.spent.values()) / 60},
    }


def search_cost(outcome: Outcome) -> float:
    """The CPU time of a search as a multiple of one training of its child."""
    own = [training.cpu_seconds for entry in outcome.entries if entry.contender == OURS for training in entry.trainings]
    return float(np.mean([search["cpu_seconds"] for search in _ours(outcome)]) / np.mean(own))


def by_split(outcome: Outcome, split: Split) -> dict[str, Any]:
    """The comparison on the validation or on the test images; every choice was made on the validation images."""
    entries = outcome.entries
    ours = accuracies_of(entries, OURS, split)
    found: dict[str, Any] = {"accuracy": {}, "ours_minus": {}}
    for contender in dict.fromkeys(entry.contender for entry in entries):
        values = accuracies_of(entries, contender, split)
        error = float(values.mean(1).std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
        found["accuracy"][contender] = {"mean": float(values.mean()), "best": float(values.max()), "error": error}
        if contender != OURS:
            paired = contender in OF_THE_SAME_SUPERNET
            found["ours_minus"][contender] = difference(ours, values, paired).model_dump()
    randoms, validation = (accuracies_of(entries, "random", s)[:, 0] for s in (split, "val"))
    found["percentile"] = percentile(ours, randoms)
    found["best_of"] = [
        best_of(ours, validation, randoms, count).model_dump() for count in range(1, min(len(randoms), 8) + 1)
    ]
    found["equal_cost"] = best_of(ours, validation, randoms, affordable(outcome)).model_dump()
    found["kendall_tau"] = [rank_correlation(rank["accuracies"], randoms.tolist()) for rank in outcome.ranks]
    return found


def affordable(outcome: Outcome) -> int:
    """How many random children can be trained for what one search costs together with the training of its child."""
    ours = [
        training.cpu_seconds for entry in outcome.entries if entry.contender == OURS for training in entry.trainings
    ]
    randoms = [t.cpu_seconds for entry in outcome.entries if entry.contender == "random" for t in entry.trainings]
    searching = float(np.mean([search["cpu_seconds"] for search in _ours(outcome)]))
    return max(1, round((searching + float(np.mean(ours))) / float(np.mean(randoms))))


def _ours(outcome: Outcome) -> Sequence[dict[str, Any]]:
    """The searches within the latency budget: those with multiply-adds come after them."""
    return outcome.searches[: outcome.bench.protocol.searches]
