"""The records of a latency table: its head and its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, TypeAdapter, model_validator

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.artifact import Precision
from dmask_mobile.records.base import FileRecord, Record
from dmask_mobile.records.block import BlockSpec, Size
from dmask_mobile.records.child import ChildSpec

MIN_MS, MAX_MS = 1e-6, 1e7  # of one run: from a nanosecond to almost three hours
MAX_SAMPLES = 10_000  # of a row; our tables have 30
MAX_LOOPS = 1_000_000
MAX_CORES = 4_096
NOT_COMPARED = ("created", "reached_at", "prior", "block_models")  # these do not affect measurements
UNKNOWN_AGREES = ("cpu", "governor", "turbo")  # fields that older tables lack and some devices do not report
MAX_METRIC = 1e18  # a million times the bytes of a large computer's memory

Milliseconds = Annotated[float, Field(ge=MIN_MS, le=MAX_MS)]
CpuMilliseconds = Annotated[float, Field(ge=0, le=MAX_MS)]
Text = Annotated[str, Field(max_length=1_000)]
CoreCount = Annotated[int, Field(ge=0, le=MAX_CORES)]

BlockAt = tuple[BlockSpec, int]
"""A block and its input size in pixels."""

Subject = BlockAt | ChildSpec
"""What can be measured: a block or a whole network."""


class TableHead(FileRecord):
    """What all rows of a table have in common; tables agree if everything except `NOT_COMPARED` is equal.

    ``soc``: a phone's chip. ``clocks_mhz``: the highest clock of each core. ``pinned_cores``: the requested cores
    (empty: the default ones). ``emulated``: measured on an emulator, so the times are meaningless. ``reached_at``: how
    the device was reached, ``local``, ``ssh:HOST`` or ``adb[:SERIAL]``. ``cpu``: family, model and stepping of the
    processor. ``governor`` and ``turbo``: the control of its clock. These three are empty if unknown, which agrees with
    any value. ``cpu_limit``: the CPU time that a container may use, in cores; 0 for no limit. ``prior``: the digest of
    the table whose latencies are in the rows `PriorRow`; empty for none.
    ``block_models``: how the models of blocks were made; empty if the official converter made each of them.
    """

    file_format: ClassVar[str] = "dmask-latency-table"
    file_version: ClassVar[int] = 5  # 4 did not know slowed rounds, 3 no metrics
    oldest_version: ClassVar[int | None] = 1
    old_names: ClassVar[Mapping[str, str]] = {"emulated": "functional"}
    added_fields: ClassVar[tuple[str, ...]] = ("cpu", "governor", "turbo", "cpu_limit", "prior", "block_models")

    device: Text
    system: Text
    cores: CoreCount
    soc: Text = ""
    clocks_mhz: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...] = Field(default=(), max_length=MAX_CORES)
    runtime: Text
    runtime_version: Text
    precision: Precision = "fp32"
    delegate: Text = "cpu"
    threads: int = Field(ge=1, le=MAX_CORES)
    pinned_cores: tuple[CoreCount, ...] = Field(default=(), max_length=MAX_CORES)
    batch: int = Field(default=1, ge=1, le=10_000)
    emulated: bool = False
    created: Text
    reached_at: Text = "local"
    cpu: Text = ""
    governor: Text = ""
    turbo: Text = ""
    cpu_limit: Annotated[float, Field(ge=0, le=MAX_CORES)] = 0.0
    prior: Text = ""
    block_models: Text = ""

    def check_same(self, other: TableHead, source: str) -> None:
        """Compares everything that a measurement depends on.

        Raises:
            DmaskError: naming the first field that differs and both values.
        """
        for field in type(self).model_fields:
            ours, theirs = getattr(self, field), getattr(other, field)
            unknown = field in UNKNOWN_AGREES and "" in (ours, theirs)
            if field not in NOT_COMPARED and ours != theirs and not unknown:
                raise DmaskError(
                    f"{source}: {field} of the table is '{ours}', here it is '{theirs}'",
                    "use a table of this device, or profile this one: dmask profile SPACE -o TABLE",
                )


DeviceIndex = Annotated[int, Field(ge=0, le=1_000, validation_alias=AliasChoices("device_index", "unit"))]
"""The number of the device among several identical ones; its name in version 1 was ``unit``."""


class Row(Record):
    """One round of samples in milliseconds: wall time, and CPU time of the thread that ran the model.

    ``hot``: the device was too warm for its full speed. ``loops``: each sample is the mean of this number of runs.
    ``slowed``: something else slowed down the core during almost every run, such as another virtual machine.
    """

    round: int = Field(ge=0, le=1_000_000)
    at: Text
    device_index: DeviceIndex = 0
    wall_ms: tuple[Milliseconds, ...] = Field(min_length=1, max_length=MAX_SAMPLES)
    cpu_ms: tuple[CpuMilliseconds, ...] = Field(max_length=MAX_SAMPLES)
    hot: bool = False
    loops: int = Field(default=1, ge=1, le=MAX_LOOPS)
    slowed: bool = False


class BlockRow(Row):
    """A round of one block."""

    row: Literal["block"] = "block"
    block: BlockSpec
    in_size: Size

    @property
    def subject(self) -> Subject:
        """The block at its input size."""
        return self.block, self.in_size


class NetworkRow(Row):
    """A round of one whole network."""

    row: Literal["network"] = "network"
    child: ChildSpec

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.child


class SentinelRow(Row):
    """A round of one of the few networks that are measured repeatedly to follow the drift of the machine.

    ``elapsed_s``: the seconds of profiling so far, over all runs for this table.
    """

    row: Literal["sentinel"] = "sentinel"
    child: ChildSpec
    elapsed_s: float = Field(ge=0, le=1e9)

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.child


class BlockSentinelRow(Row):
    """A round of one of the few blocks that are measured repeatedly to follow the drift of blocks measured alone.

    It may differ from the drift of networks: another program that fills a shared cache slows down networks, whose
    weights come from memory, but not a block whose weights stay in the core's own cache.
    """

    row: Literal["block_sentinel"] = "block_sentinel"
    block: BlockSpec
    in_size: Size
    elapsed_s: float = Field(ge=0, le=1e9)

    @property
    def subject(self) -> Subject:
        """The block at its input size."""
        return self.block, self.in_size


class RecheckRow(Row):
    """A round of a sentinel network after the table was made, which shows the current speed of the device.

    ``check``: the number of the check; the last one is used.
    """

    row: Literal["recheck"] = "recheck"
    child: ChildSpec
    check: int = Field(ge=0, le=1_000_000)

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.child


class FailureRow(Record):
    """A block or network that the runtime could not convert, load or run, and why."""

    row: Literal["failure"] = "failure"
    at: Text
    block: BlockSpec | None = None
    in_size: Size | None = None
    child: ChildSpec | None = None
    reason: str

    @model_validator(mode="after")
    def _names_what_failed(self) -> Self:
        if self.child is None and (self.block is None or self.in_size is None):
            raise ValueError("a failure names a child, or a block and its in_size")
        return self

    @property
    def subject(self) -> Subject:
        """What failed."""
        if self.child is not None:
            return self.child
        assert self.block is not None
        assert self.in_size is not None
        return self.block, self.in_size


class MetricRow(Record):
    """A metric of a whole network other than its latency; ``value`` in the unit of the metric of this name."""

    row: Literal["metric"] = "metric"
    at: Text
    device_index: DeviceIndex = 0
    metric: Text
    child: ChildSpec
    value: float = Field(gt=0, le=MAX_METRIC)


class NoMetricRow(Record):
    """A metric that the device does not report, and why."""

    row: Literal["no_metric"] = "no_metric"
    at: Text
    metric: Text
    reason: Text


class PriorRow(Record):
    """A block's latency in the table of another device or runtime, on which predictions are based."""

    row: Literal["prior"] = "prior"
    block: BlockSpec
    in_size: Size
    ms: Milliseconds


class ConditionsRow(Record):
    """The state of a phone; see `latency_tables.devices.device.Conditions`."""

    row: Literal["conditions"] = "conditions"
    at: Text
    device_index: DeviceIndex = 0
    thermal_status: int | None
    battery_percent: float | None
    battery_celsius: float | None


class SharesRow(Record):
    """The share of each kind of operation in a network's latency, as estimated by the runtime (not measured)."""

    row: Literal["estimated_shares"] = "estimated_shares"
    at: Text
    child: ChildSpec
    shares: tuple[tuple[Text, float], ...] = Field(max_length=10_000)


TableRow = (
    BlockRow
    | NetworkRow
    | SentinelRow
    | BlockSentinelRow
    | RecheckRow
    | FailureRow
    | PriorRow
    | MetricRow
    | NoMetricRow
    | ConditionsRow
    | SharesRow
)
ROW: TypeAdapter[TableRow] = TypeAdapter(Annotated[TableRow, Field(discriminator="row")])


def describe_subject(subject: Subject) -> str:
    """A short name for messages."""
    if isinstance(subject, ChildSpec):
        return f"network {subject.name} at {subject.resolution} px"
    return f"{subject[0].describe()} at {subject[1]}x{subject[1]}"
