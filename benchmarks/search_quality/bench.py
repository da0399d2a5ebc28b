"""`Bench`: what every job of one setting is given; `Network`: what is trained and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models import mobilenetv3
from torch import nn

from dmask_mobile import api
from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.data.images import ImageData
from dmask_mobile.nets.build import build
from dmask_mobile.records.base import Record
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.search.settings import SearchSettings
from dmask_mobile.training.train import TrainSettings
from search_quality.images import read_images
from search_quality.protocol import Protocol, Setting


class Network(Record):
    """A child of the setting's space, or a MobileNetV3 of timm (``variant``: small or large) with scaled widths."""

    choice: Choice | None = None
    variant: str = ""
    multiplier: float = 1.0


class Bench(NamedTuple):
    """A setting with its images, its table and the search that is tried in it.

    ``images``: the result of `images.prepared`; ``table``: the latency table, empty before it was made;
    ``budget_ms``: 0 before that. ``name`` and ``search``: which search is tried, and its settings.
    """

    work: Path
    protocol: Protocol
    setting: Setting
    images: dict[str, Any]
    name: str
    search: SearchSettings
    table: str = ""
    budget_ms: float = 0.0

    @property
    def space(self) -> SearchSpace:
        """The space, for the classes of the images."""
        return self.setting.search_space(self.images["classes"])

    def data(self) -> ImageData:
        """The training and validation images."""
        return read_images(self.images["path"])

    def cost(self, name: str = "latency") -> ChainCost:
        """The latency (or multiply-adds) of every child."""
        cost = api.cost_model(name, [self.table] if name == "latency" else []).on(self.space)
        assert isinstance(cost, ChainCost)
        return cost

    def training(self, seed: int) -> TrainSettings:
        """The same for every network: the default recipe."""
        return TrainSettings(epochs=self.setting.epochs, seed=seed)

    @property
    def budget(self) -> dict[str, Any]:
        """What names the space and its budget."""
        return {"space": self.space.digest(), "latency": self.cost().digest(), "budget_ms": self.budget_ms}

    def resolution(self, network: Network) -> int:
        """Of a network's images: the largest one for those of timm."""
        if network.choice is None:
            return self.setting.resolutions[-1]
        return self.space.decisions[0].width(network.choice[0])

    def module(self, network: Network, seed: int) -> nn.Module:
        """A network with random weights."""
        if network.choice is not None:
            return build(self.space.child(network.choice), torch.Generator().manual_seed(seed))
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            model: nn.Module = mobilenetv3._gen_mobilenet_v3(  # what timm's own models call; they fix the multiplier
                f"mobilenetv3_{network.variant}_100", network.multiplier, num_classes=self.space.classes
            )
        return model

    def identity(self, network: Network) -> dict[str, Any]:
        """What decides a network before it is trained."""
        if network.choice is not None:
            return {"child": self.space.child(network.choice).digest()}
        shape = [self.space.classes, self.resolution(network)]
        return {"variant": network.variant, "multiplier": network.multiplier, "shape": shape}

    def macs(self, network: Network) -> float | None:
        """Multiply-adds of a child; None for a network of timm."""
        if network.choice is None:
            return None
        return api.cost_model("macs").estimate(self.space.child(network.choice)).value
