"""Results that ``--json`` prints and that are not records: mappings of their own, or keys in addition to a record."""

from __future__ import annotations

from typing_extensions import TypedDict


class RunAccuracy(TypedDict):
    """Printed by ``train``. ``accuracy``: top-1 on the validation images, in 0..1."""

    run: str
    accuracy: float


class Seconds(TypedDict):
    """Printed by a dry run of ``search`` and ``train`` with `Estimate`. ``seconds``: the estimate of the whole."""

    seconds: float


class AccuracyFacts(TypedDict):
    """Printed by ``test`` with `AccuracyRecord`.

    ``num_images``: the number of evaluated images. ``class_accuracies``: null for a class without images.
    """

    num_images: int
    class_accuracies: list[float | None]


class Outcome(TypedDict):
    """Printed by ``demo`` and ``verify`` with `Verification`. ``source``: the run folder or the files."""

    passed: bool
    source: str


class DoctorFinding(TypedDict):
    """One finding. ``verdict``: ok, note or problem; ``fix``: what to do."""

    check: str
    verdict: str
    found: str
    fix: str


class Findings(TypedDict):
    """Printed by ``doctor``. ``healthy``: whether there is no problem."""

    healthy: bool
    findings: list[DoctorFinding]


class ImportFacts(TypedDict):
    """Of ``space from``, beside `SpaceFacts`.

    ``path``: the space's file; ``weights``: that of its weights; ``difference``: the largest one from the original's
    outputs, as a share of their range.
    """

    path: str
    weights: str | None
    difference: float


class WrittenReport(TypedDict):
    """Printed by ``report``. ``report``: the path of the page."""

    report: str
    size_bytes: int
    runs: list[str]


class WrittenPicture(TypedDict):
    """Printed by ``plot`` and ``table plot``."""

    picture: str


class WrittenCard(TypedDict):
    """Printed by ``card``. ``kept``: a README.md that was edited by hand and is kept; null if there is none."""

    card: str
    kept: str | None


class SpaceFacts(TypedDict):
    """Printed by ``space show`` with `SearchSpace`."""

    digest: str
    num_children: int


class MetricFacts(TypedDict):
    """A metric beside latency: how many networks were measured, in which unit, and why not if the device cannot.

    ``error``: for networks that were left out of the fit, as a share; null if unknown.
    """

    unit: str
    num_networks: int
    error: float | None
    not_available: str | None


class TableFacts(TypedDict):
    """Printed by ``table show``, ``table check`` and ``table merge`` with `TableHead`.

    ``error`` and ``relative_spread``: for networks that were left out of the fit, as shares; null if unknown.
    ``noise``: the noise between rounds, as a share. ``disturbed_share``: of the rounds, during which other programs or
    virtual machines used the core. ``quantile``: of a round's runs, counts as the time of the round.
    ``device_scale``: how slow the device was at its last check; 1 if it was as when the table was made.
    ``failures``: blocks that could not be measured, and the reasons. ``metrics``: by name, memory and energy.
    """

    num_blocks: int
    num_networks: int
    relative_spread: float | None
    noise: float
    disturbed_share: float
    error: float | None
    quantile: float
    device_scale: float
    failures: list[str]
    metrics: dict[str, MetricFacts]


class ProfileFacts(TableFacts):
    """Printed by ``profile`` with `TableHead`. ``incomplete``: what the table lacks for its space; null if complete."""

    incomplete: str | None


class TableChange(TypedDict):
    """A block or network in two tables. ``change``: second / first - 1."""

    subject: str
    first_ms: float
    second_ms: float
    change: float


class TableChanges(TypedDict):
    """Printed by ``table diff``. ``common``: entries of both tables by falling change; others: entries of one table."""

    median_change: float
    common: list[TableChange]
    only_first: int
    only_second: int


class ImportedTable(TypedDict):
    """Printed by ``table import``. ``findings``: entries that were left out, and the reasons."""

    table: str
    num_blocks: int
    findings: list[str]
