"""`Report`: everything that the page shows, gathered before anything is drawn; the page offers it as JSON.

None means unknown. Parts that a run does not have yet are None or empty, and `RunView.missing` says how to get them.
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
    """One block of the child; ``widest``: the block of the space's widest child at this position."""

    name: str
    block: BlockSpec
    widest: BlockSpec | None
    in_size: int
    out_size: int
    macs: int
    params: int


class BlockLatency(Record):
    """The latency of one block of the child according to a table, in ms.

    ``predicted_ms``: its share of the whole network's latency. ``alone_ms``: the latency measured for the block alone;
    None if it was not measured. ``spread_ms``: one standard deviation, for a block that was predicted from others.
    """

    predicted_ms: float
    alone_ms: float | None
    spread_ms: float


class NetworkPoint(Record):
    """A whole network of a table: its measurement, and its prediction by a fit to all other networks."""

    resolution: int
    predicted_ms: float
    measured_ms: float


class TableView(Record):
    """A latency table and its predictions for the child.

    ``cost``: its name in budgets. ``predicted_ms``: the sum of ``offset_ms`` and the blocks' ``predicted_ms``.
    ``error`` and ``spread``: for networks that were left out of the fit, as shares. ``problem``: the reason why
    something is missing.
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

    ``expected``: the expected cost of the gates at the end of the search. ``predicted``: the predicted cost of the
    child. ``measured``: the value measured on an artifact, or computed from the child. ``verdict``: the verdict of the
    verification.
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
    """The log of a search by epoch; for a long search, evenly chosen epochs.

    ``expected``: the expected cost as a share of its budget. ``multipliers``: lambda of each budget. ``accuracies``:
    the accuracies on training batches of weight steps and of gate steps. ``num_gates``: the number of gates with
    several options.
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
    """Two confused classes: ``count`` images of ``true`` were predicted as ``predicted``."""

    true: str
    predicted: str
    count: int
    share: float


class ClassAccuracy(Record):
    """A class: the number of its images, and the share of them that was classified correctly."""

    name: str
    num_images: int
    accuracy: float | None


class AccuracyView(Record):
    """The accuracy on one split.

    ``classes``: the hardest first; if there are many, only the hardest. ``matrix``: images by true class (rows) and
    predicted class (columns), in the order of ``class_names``; left out if there are too many classes to draw.
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
    """A command line with a remark."""

    line: str
    note: str = ""


class Missing(Record):
    """The reason why a part of the page is missing, and the commands that make it."""

    why: str
    commands: tuple[str, ...] = ()


class RunView(Record):
    """One run.

    ``accuracy``: top-1 accuracy of the trained child. ``accuracy_split``: the split that it was measured on.
    ``checks``: the checks of the verification, failures first. ``missing``: for each missing part of the report, how to
    get it.
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
    """A sweep: its results and the name of its folder."""

    name: str
    found: SweepRecord


class Report(FileRecord):
    """All runs and sweeps of one report."""

    file_format: ClassVar[str] = "dmask-report"

    created: str
    dmask_version: str
    runs: tuple[RunView, ...]
    sweeps: tuple[SweepView, ...] = ()
