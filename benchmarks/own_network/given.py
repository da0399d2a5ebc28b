"""`Given`: the network that users would have, trained on the classes of the data, with its space and its table."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from search_quality.images import prepared, read_images
from search_quality.once import CpuClock, Result, once
from torch import Tensor, nn

from dmask_mobile import api
from dmask_mobile.api.importing import imported_weights
from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.costs.model import CostModel
from dmask_mobile.data.images import ImageData
from dmask_mobile.errors import DmaskError
from dmask_mobile.importing.importance import sorted_by_importance
from dmask_mobile.nets.build import ChildNetwork
from dmask_mobile.records.artifact import hash_path
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.search.search import start_from
from dmask_mobile.supernet.slices import slice_of
from dmask_mobile.supernet.subnet import extract_subnet
from dmask_mobile.supernet.supernet import MaskedSupernet
from dmask_mobile.training.checkpoint import content_digest
from dmask_mobile.training.train import train_child
from latency_tables.profiling.profile import what_is_missing
from latency_tables.profiling.settings import ProfileSettings
from latency_tables.table.table import LatencyTable
from own_network.plan import Plan

State = dict[str, Tensor]


class Given(NamedTuple):
    """A plan with its images, the space around the given network, the network's weights and the latency table.

    ``images``: the result of `search_quality.images.prepared`; ``path``: of the weights, whose channels are sorted by
    importance.
    """

    work: Path
    plan: Plan
    images: dict[str, Any]
    space: SearchSpace
    path: Path
    table: Path

    @property
    def original(self) -> ChildSpec:
        """The given network."""
        return self.space.child(self.space.largest(), "original")

    @property
    def state(self) -> State:
        """The weights of the given network."""
        state: State = torch.load(self.path, weights_only=True)
        return state

    @property
    def identity(self) -> dict[str, Any]:
        """What every search and every training depends on."""
        return {
            "images": self.images["identity"],
            "space": self.space.digest(),
            "given": self.path.parent.name,
        }

    def data(self, resolution: int | None = None) -> ImageData:
        """The training and validation images, as networks of this resolution get them."""
        return read_images(self.images["path"]).normalized_by(self.space.input).at(resolution or self.space.resolution)

    def cost(self, name: str = "latency") -> ChainCost:
        """The predicted latency (or the multiply-adds) of every child."""
        return _cost(name, self.table, self.space)


@functools.cache
def latency_model(table: Path) -> CostModel:
    """What a finished table predicts; the fit takes seconds."""
    return api.cost_model("latency", [table])


@functools.cache
def _cost(name: str, table: Path, space: SearchSpace) -> ChainCost:
    model = latency_model(table) if name == "latency" else api.cost_model(name)
    cost = model.on(space)
    assert isinstance(cost, ChainCost)
    return cost


def inherited(state: State, child: ChildSpec) -> ChildNetwork:
    """A network with its slices of the weights of the widest one: a child, or one that is not in the space."""
    network = ChildNetwork(child)
    network.load_state_dict({name: slice_of(state[name], own.shape) for name, own in network.state_dict().items()})
    return network


def images_of(work: Path, plan: Plan) -> dict[str, Any]:
    """The images, decoded at the largest resolution."""
    return prepared(work, plan, plan.data)


def imported(work: Path, plan: Plan, classes: int) -> tuple[SearchSpace, nn.Module]:
    """The space around the network, for the classes of the data, and the network with a new classifier."""

    def job(folder: Path, clock: CpuClock) -> Result:
        path = folder / "space.yaml"
        for left in (path, path.with_suffix(".safetensors")):  # of a start that was interrupted
            left.unlink(missing_ok=True)
        found = api.import_space(plan.network, path, weights=plan.weights, importance=plan.importance)
        return {"path": str(path), "difference": found.difference}

    weights = None if plan.weights is None else hash_path(Path(plan.weights))
    identity = {"network": plan.network, "weights": weights, "importance": plan.importance}
    path = once(work, "import", identity, job)["path"]
    space = load_space(path)
    state = imported_weights(path, space)
    own = space.input.model_dump() | {"resolutions": plan.resolutions, "crop": 1.0}
    if plan.mean is not None and plan.std is not None:
        own |= {"mean": (plan.mean,) * space.input.channels, "std": (plan.std,) * space.input.channels}
    content = space.model_dump() | {"classes": classes, "input": own}
    space = SearchSpace.model_validate(content)
    supernet = MaskedSupernet(space)
    start_from(supernet, state)
    return space, extract_subnet(supernet, space.largest())


def given_network(work: Path, plan: Plan, images: dict[str, Any], space: SearchSpace, network: nn.Module) -> Given:
    """The network fine-tuned on the data, its channels sorted, with the table of its space."""
    given = Given(work, plan, images, space, Path(), Path())

    def job(folder: Path, clock: CpuClock) -> Result:
        settings = plan.fine_tuning(0, plan.given_epochs)
        trained = train_child(network, given.data(), settings, folder / "checkpoint.pt", clock)
        state = sorted_by_importance(space, network.state_dict(), None, "l1")
        torch.save(state, folder / "given.pt")
        return {"path": str(folder / "given.pt"), "val": trained.accuracy}

    start = content_digest(network.state_dict())
    identity = {"images": images["identity"], "start": start, "space": space.digest(), "epochs": plan.given_epochs}
    found = once(work, "given", identity, job)
    return given._replace(path=Path(found["path"]), table=_table(given))


def _table(given: Given) -> Path:
    """The latency table of the space."""
    plan = given.plan
    if plan.table is not None:
        return Path(plan.table)

    def job(folder: Path, clock: CpuClock) -> Result:
        settings = ProfileSettings(minutes=plan.profile_minutes, seconds_per_block=0.01, seconds_per_network=0.05)
        made = api.profile(given.space, folder / "table.jsonl", settings=settings)
        if missing := what_is_missing(made, given.space):
            raise DmaskError(f"'{folder / 'table.jsonl'}' is {missing}", "raise --profile-minutes")
        return {"path": str(folder / "table.jsonl"), "rows": len(LatencyTable.read(folder / "table.jsonl").rows)}

    identity = {"space": given.space.digest(), "minutes": plan.profile_minutes}
    return Path(once(given.work, "table", identity, job)["path"])
