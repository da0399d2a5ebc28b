"""Candidates ranked by the accuracy of their exports."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from dmask_mobile.data.images import normalized, seen
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.artifact import ModelFormat, Precision
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.search.rank import Candidate, draw_within, recalibrated_subnet
from dmask_mobile.search.rank_exported import NUM_EXPORTED, rank_exported
from dmask_mobile.supernet.supernet import MaskedSupernet
from tests.dmask_mobile.search.test_rank import BUDGETS, PROBABILITIES, generator, logits_of
from tests.dmask_mobile.small import SPACE, few_images


@dataclass
class FakeScorer:
    """Gives each child a known accuracy and keeps what it was asked for."""

    known: dict[str, float]
    model_format: ModelFormat = "onnx"
    precision: Precision = "int8"
    asked: list[tuple[ChildNetwork, Tensor, Tensor]] = field(default_factory=list)

    def accuracy(
        self, network: ChildNetwork, child: ChildSpec, calibration_MCRR: Tensor, images_NCRR: Tensor, labels_N: Tensor
    ) -> float:
        assert len(images_NCRR) == len(labels_N)
        self.asked.append((network, calibration_MCRR, images_NCRR))
        return self.known[child.digest()]


def test_a_candidate_whose_export_is_bad_loses_and_only_the_best_are_exported() -> None:
    data, supernet = few_images(96), MaskedSupernet(SPACE)
    choices = draw_within(BUDGETS[:1], logits_of(PROBABILITIES), NUM_EXPORTED + 1, generator())
    given = [Candidate(choice, 0.0, number / 10, 0.9) for number, choice in enumerate(choices)]
    accuracies = [0.2, 0.7, 0.8, 0.7, 0.6]
    scorer = FakeScorer(dict(zip((SPACE.child(c).digest() for c in choices), accuracies, strict=False)))
    notes: list[str] = []
    found = rank_exported(
        given,
        supernet,
        scorer,
        (data.train, data.val),
        data,
        lambda *said: notes.append(f"{said[1]}/{said[2]} {said[3]}"),
    )
    assert [c.choice for c in found] == [choices[i] for i in (2, 1, 3, 4, 0, 5)]
    assert [c.exported_accuracy for c in found] == [0.8, 0.7, 0.7, 0.6, 0.2, None]
    assert notes[0] == "1/5 onnx int8, accuracy 20.0%"
    network, calibration, images = scorer.asked[0]
    own = data.at(SPACE.child(choices[0]).resolution)
    expected = recalibrated_subnet(supernet, choices[0], data.train, own).eval()
    assert calibration.shape[0] == len(data.train) == 96
    assert sorted(images.mean((1, 2, 3)).tolist()) == sorted(seen(data.val.pixels(), own).mean((1, 2, 3)).tolist())
    with torch.no_grad():
        inputs = normalized(data.val.pixels(), own)
        assert torch.equal(network.eval()(inputs), expected(inputs))


def test_an_unrelated_error_of_an_export_is_not_hidden() -> None:
    data = few_images(96)
    given = [Candidate(SPACE.smallest(), 0.0, 1.0, 0.9)]
    with pytest.raises(KeyError):
        rank_exported(given, MaskedSupernet(SPACE), FakeScorer({}), (data.train, data.val), data)
