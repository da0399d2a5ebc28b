"""What ``--json`` prints where it is not a record: keys of its own, or keys beside those of a record."""

from __future__ import annotations

from typing_extensions import TypedDict


class RunAccuracy(TypedDict):
    """Of ``train``. ``accuracy``: top-1 on the validation images, in 0..1."""

    run: str
    accuracy: float


class Seconds(TypedDict):
    """Of a dry run of ``search`` and ``train``, beside `Estimate`. ``seconds``: of the whole."""

    seconds: float


class AccuracyFacts(TypedDict):
    """Of ``test``, beside `AccuracyRecord`.

    ``num_images``: that the accuracy was measured on; ``class_accuracies``: null for a class without images.
    """

    num_images: int
    class_accuracies: list[float | None]


class Outcome(TypedDict):
    """Of ``demo`` and ``verify``, beside `Verification`. ``source``: the run folder or the files."""

    passed: bool
    source: str


class DoctorFinding(TypedDict):
    """One finding. ``verdict``: ok, note or problem; ``fix``: what to do."""

    check: str
    verdict: str
    found: str
    fix: str


class Findings(TypedDict):
    """Of ``doctor``. ``healthy``: nothing is a problem."""

    healthy: bool
    findings: list[DoctorFinding]


class WrittenReport(TypedDict):
    """Of ``report``. ``report``: the page."""

    report: str
    size_bytes: int
    runs: list[str]


class WrittenPicture(TypedDict):
    """Of ``plot`` and ``table plot``."""

    picture: str


class WrittenCard(TypedDict):
    """Of ``card``. ``kept``: a README.md that was edited by hand and that is kept, null without one."""

    card: str
    kept: str | None


class SpaceFacts(TypedDict):
    """Of ``space show``, beside `SearchSpace`."""

    digest: str
    num_children: int


class TableFacts(TypedDict):
    """Of ``table show`` and ``table merge``, beside `TableHead`.

    ``error`` and ``relative_spread``: of networks that were left out of the fit, as shares, null where they are
    unknown; ``noise``: between rounds, as a share; ``failures``: blocks that could not be measured, and why.
    """

    num_blocks: int
    num_networks: int
    relative_spread: float | None
    noise: float
    error: float | None
    failures: list[str]


class ProfileFacts(TableFacts):
    """Of ``profile``, beside `TableHead`. ``incomplete``: what the table lacks for its space, null for nothing."""

    incomplete: str | None


class TableChange(TypedDict):
    """A block or network in two tables. ``change``: second / first - 1."""

    subject: str
    first_ms: float
    second_ms: float
    change: float


class TableChanges(TypedDict):
    """Of ``table diff``. ``common``: what both tables hold, by falling change; the others: how many only one holds."""

    median_change: float
    common: list[TableChange]
    only_first: int
    only_second: int


class ImportedTable(TypedDict):
    """Of ``table import``. ``findings``: entries that were left out, and why."""

    table: str
    num_blocks: int
    findings: list[str]
