"""Derives the child from the decided gates, and records how it was chosen."""

from __future__ import annotations

import torch

from dmask_mobile.errors import DmaskError
from dmask_mobile.progress import Progress, silent
from dmask_mobile.records.choice import Choice
from dmask_mobile.run import CandidateRecord, SearchResultRecord, TrialRecord
from dmask_mobile.search.budgets import derive_within
from dmask_mobile.search.derive import log_scores, score_of
from dmask_mobile.search.rank import draw_within, rank
from dmask_mobile.search.rank_exported import ExportScorer, rank_exported
from dmask_mobile.search.search import Searcher, SearchResult
from dmask_mobile.search.sensitivity import Sensitivity
from dmask_mobile.search.settings import SearchSettings

SAMPLES = 24  # of a search that trains a supernet and makes no trials


def num_samples(settings: SearchSettings, samples: int | None) -> int:
    """The number of children that are drawn within the budgets: ``samples``, or the default of the search."""
    if samples is not None:
        return samples
    has_trials = settings.method == "single_path" and settings.trials > 0
    return 1 if has_trials or settings.method == "sensitivity" else SAMPLES


def check_ranking(searcher: Searcher, samples: int | None) -> None:
    """Checks that children can be ranked by their loss with the weights of the search.

    Raises:
        DmaskError: if they can not: nothing is trained, and the given network has other classes than the data.
    """
    method, classes = searcher.gate_training, searcher.supernet.space.classes
    if num_samples(searcher.settings, samples) == 1 or not isinstance(method, Sensitivity):
        return
    if method.given.space.classes != classes:
        raise DmaskError(
            f"the data has {classes} classes and the given network {method.given.space.classes}, so that its classifier"
            " is not trained, and children cannot be ranked by their loss",
            "leave out --samples and --rank-precision, or search with --method single_path",
        )


def choose_child(
    searcher: Searcher,
    found: SearchResult,
    samples: int | None = None,
    progress: Progress = silent,
    scorer: ExportScorer | None = None,
) -> SearchResultRecord:
    """The child that the search selects, and how it was chosen.

    Args:
        searcher: the search; its budgets and images are used.
        found: the result of the search.
        samples: the number of children that are drawn within the budgets, including the best one by the gates. The
            child with the lowest loss on the gates' images, with its weights from the supernet, is selected. With 1,
            the best one by the gates is selected. None: 24 if the search trains a supernet and makes no trials;
            otherwise 1, because trials and a given network are more accurate than a supernet.
        progress: is called after each ranked child.
        scorer: measures the accuracy of exports, by which the best candidates are then ranked; None to rank by the
            loss alone.

    Raises:
        DmaskError: if no child within the budgets was found.
    """
    space, budgets = found.supernet.space, searcher.budgets
    probabilities = found.logits.as_arrays()
    derived = derive_within(budgets, probabilities)

    def costs(choice: Choice) -> tuple[float, ...]:
        return tuple(budget.cost.cost(choice) for budget in budgets)

    choice, candidates = derived.choice, []
    samples = num_samples(searcher.settings, samples)
    if samples > 1:
        drawn = draw_within(budgets, found.logits, samples, torch.Generator().manual_seed(searcher.settings.seed))
        candidates = rank(drawn, found.supernet, probabilities, searcher.for_gates, searcher.data, progress)
        if scorer is not None:
            images = searcher.for_weights, searcher.for_gates
            candidates = rank_exported(candidates, found.supernet, scorer, images, searcher.data, progress)
        choice = candidates[0].choice
    return SearchResultRecord(
        choice=choice,
        decided={d.name: d.options[i] for d, i in zip(space.decisions, choice.indices, strict=True)},
        probabilities={d.name: tuple(p.tolist()) for d, p in zip(space.decisions, probabilities, strict=True)},
        expected=found.expected,
        entropy=found.entropy,
        score=score_of(space, log_scores(probabilities), choice),
        costs=costs(choice),
        gap=derived.gap,
        lower_bound_relaxed=derived.lower_bound_relaxed,
        derivation="ranked" if candidates else "bounded" if derived.gap else "exact",
        candidates=tuple(
            CandidateRecord(
                child_digest=space.child(c.choice).digest(),
                choice=c.choice,
                costs=costs(c.choice),
                score=c.score,
                loss=c.loss,
                accuracy=c.accuracy,
                exported_accuracy=c.exported_accuracy,
            )
            for c in candidates
        ),
        rank_precision="fp32" if scorer is None else scorer.precision,
        rank_format=None if scorer is None else scorer.model_format,
        trials=tuple(
            TrialRecord(
                child_digest=space.child(t.choice).digest(),
                choice=t.choice,
                costs=costs(t.choice),
                loss=t.loss,
                accuracy=t.accuracy,
            )
            for t in found.trials
        ),
        warnings=found.warnings,
    )
