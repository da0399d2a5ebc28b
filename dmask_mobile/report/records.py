"""`Report`: everything that the page shows, gathered before anything is drawn; it is also the JSON that can be saved.

None stands for what is not known. What a run does not have yet is None or empty, and `RunView.missing` says how to get
it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.sweep import SweepRecord
from dmask_mobile.records.verification import Check

State = Literal["verified", "failed", "not verified", "not yet verified"]
Section = Literal["verdict", "network", "latency", "gates", "prediction", "numerics", "accuracy"]


class BlockView(Record):
    """One block of the child; ``widest``: the block that the widest child of the space has there."""

    name: str
    block: BlockSpec
    widest: BlockSpec | None
    in_size: int
    out_size: int
    macs: int
    params: int


class BlockLatency(Record):
    """What a table says of one block of the child, in ms.

    ``predicted_ms``: its share of the whole network's latency; ``alone_ms``: measured by itself, None where it was not;
    ``spread_ms``: one standard deviation of a block that was predicted from others.
    """

    predicted_ms: float
    alone_ms: float | None
    spread_ms: float


class NetworkPoint(Record):
    """A whole network of a table: measured, and predicted by a fit to all the others."""

    resolution: int
    predicted_ms: float
    measured_ms: float


class TableView(Record):
    """A latency table, and what it says of the child.

    ``cost``: what budgets call it; ``predicted_ms`` is ``offset_ms`` and the blocks' ``predicted_ms`` together;
    ``error`` and ``spread``: of networks that were left out, as shares; ``problem``: why something is missing here.
    """

    name: str
    cost: str
    digest: str
    device: str
    runtime: str
    precision: Precision
    delegate: str
    threads: int
    emulated: bool
    created: str
    num_blocks: int
    noise: float
    error: float | None = None
    spread: float | None = None
    predicted_ms: float | None = None
    spread_ms: float | None = None
    offset_ms: float | None = None
    blocks: tuple[BlockLatency, ...] = ()
    networks: tuple[NetworkPoint, ...] = ()
    problem: str = ""


class BudgetView(Record):
    """A budget of the search.

    ``expected``: of the gates when the search ended; ``predicted``: of the child; ``measured``: of the artifact that
    was measured for it, or computed from the child; ``verdict``: of the verification.
    """

    cost: str
    unit: str
    limit: float
    expected: float | None
    predicted: float | None
    measured: float | None
    verdict: str


class GateView(Record):
    """One gate of the supernet: the probability of each option (rows) at each of `SearchHistory.epochs` (columns).

    ``chosen``: the option that the child has.
    """

    name: str
    kind: str
    options: tuple[float, ...]
    probabilities: tuple[tuple[float | None, ...], ...]
    last: tuple[float | None, ...]
    chosen: int | None


class Curve(Record):
    """One quantity at each of `SearchHistory.epochs`."""

    name: str
    values: tuple[float | None, ...]


class SearchHistory(Record):
    """What a search wrote about its epochs; of a long one, evenly chosen epochs.

    ``expected``: the expected cost as a share of its budget; ``multipliers``: lambda of each budget; ``accuracies``: of
    training batches, when weights learn and when gates learn. ``num_gates``: how many gates decide anything.
    """

    epochs: tuple[int, ...]
    num_epochs: int
    planned_epochs: int | None
    warmup_epochs: int | None
    expected: tuple[Curve, ...]
    multipliers: tuple[Curve, ...]
    accuracies: tuple[Curve, ...]
    entropy: tuple[Curve, ...]
    gates: tuple[GateView, ...]
    num_gates: int
    warnings: tuple[str, ...]


class SearchView(Record):
    """How the child was derived from the gates."""

    derivation: str
    sentence: str
    entropy: float
    warnings: tuple[str, ...]


class ArtifactView(Record):
    """An exported model, and the figures that its verification measured."""

    label: str
    model_format: str
    precision: Precision
    file: str
    sha256: str
    size_bytes: int
    accuracy: float | None
    latency: tuple[Check, ...]
    state: State
    numerics: tuple[Check, ...]


class Confusion(Record):
    """Two classes that are confused: ``count`` images of ``true`` were predicted as ``predicted``."""

    true: str
    predicted: str
    count: int
    share: float


class ClassAccuracy(Record):
    """A class: how many images it has, and the share of them that was recognized."""

    name: str
    num_images: int
    accuracy: float | None


class AccuracyView(Record):
    """The accuracy on one split.

    ``classes``: hardest first, of many only those; ``matrix``: images by true (rows) and predicted class, both in the
    order of ``class_names``; left out where there are too many classes to draw.
    """

    split: Literal["test", "val"]
    accuracy: float
    interval: tuple[float, float]
    num_images: int
    num_skipped: int
    note: str
    classes: tuple[ClassAccuracy, ...]
    class_names: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    confusions: tuple[Confusion, ...]
    num_classes: int


class Command(Record):
    """A command line, and what to know of it."""

    line: str
    note: str = ""


class Missing(Record):
    """Why a part of the page is not there, and the commands that make it."""

    why: str
    commands: tuple[str, ...] = ()


class RunView(Record):
    """One run.

    ``accuracy``: top-1 of the trained child and ``accuracy_split`` the images that it was measured on; ``checks``: of
    the verification, failures first; ``missing``: for each part of the report that is not there, how to get it.
    """

    name: str
    created: str
    state: State
    headline: str
    child_name: str
    child_digest: str
    resolution: int
    num_classes: int
    macs: int
    params: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    accuracy_split: str
    blocks: tuple[BlockView, ...]
    budgets: tuple[BudgetView, ...]
    tables: tuple[TableView, ...]
    search: SearchView | None
    history: SearchHistory | None
    artifacts: tuple[ArtifactView, ...]
    checks: tuple[Check, ...]
    verdicts: tuple[str, ...]
    verified_at: str
    accuracies: tuple[AccuracyView, ...]
    space_name: str
    data: str
    notes: tuple[str, ...]
    missing: dict[Section, Missing]
    commands: tuple[Command, ...]
    versions: dict[str, str]
    digests: dict[str, str]


class SweepView(Record):
    """A sweep: what it found, by the name of its folder."""

    name: str
    found: SweepRecord


class Report(FileRecord):
    """All runs and sweeps of one report."""

    file_format: ClassVar[str] = "dmask-report"

    created: str
    dmask_version: str
    runs: tuple[RunView, ...]
    sweeps: tuple[SweepView, ...] = ()
