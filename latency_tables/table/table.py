"""The latency table: JSON lines, appended as they are measured, and what they say when taken together.

The first line is the head: what was measured, on what, with what. Each further line is one round of one block or
one whole network with all its raw samples, a sentinel, or a failure. Nothing is ever rewritten, so that a killed
process loses at most the line under way.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from dmask_mobile.costs.memory import WeightBytes
from dmask_mobile.costs.values import Correction
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.base import describe_validation_error
from dmask_mobile.records.block import BlockSpec
from dmask_mobile.records.child import ChildSpec
from latency_tables.prediction.correction import MIN_NETWORKS, Corrections, Part, WholeNetwork, fit_corrections
from latency_tables.prediction.predictor import BlockPredictor, PredictedBlock, fit_predictors
from latency_tables.sources import source_digest
from latency_tables.table.rows import (
    ROW,
    BlockAt,
    BlockRow,
    FailureRow,
    NetworkRow,
    Row,
    SentinelRow,
    Subject,
    TableHead,
    TableRow,
    describe_subject,
)
from latency_tables.table.shipped import table_path
from latency_tables.table.statistics import Summary, smooth, summarize

OLD_NAMES = {**TableHead.old_names, "device_index": "unit"}

# What makes predictions: cost tensors that another version of it made are stale.
MAKES_PREDICTIONS = (
    "latency_tables/table/*.py",
    "latency_tables/prediction/*.py",
    "dmask_mobile/costs/*.py",
    "dmask_mobile/records/*.py",
)


class LatencyTable:
    """A table read into memory; satisfies `dmask_mobile.costs.latency.BlockLatencies`.

    Args:
        head: the first line.
        rows: the other lines.
        source: what errors call it.
    """

    def __init__(self, head: TableHead, rows: tuple[TableRow, ...], source: str) -> None:
        self.head = head
        self.rows = rows
        self.source = source
        self._predicted: dict[BlockAt, PredictedBlock] = {}

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """The table in ``path``, or the one that ships under this name.

        Raises:
            DmaskError: for a missing file, another format or version, a line that is cut off or broken.
        """
        path = table_path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DmaskError(
                f"cannot read table '{path}': {error}", "make one: dmask profile SPACE -o TABLE"
            ) from error
        lines = text.split("\n")
        if lines[-1]:
            raise DmaskError(
                f"table '{path}': line {len(lines)}, the last one, is cut off",
                "run 'dmask profile' with the same table again: it drops that line and goes on",
            )
        head = TableHead.from_dict(_parse(lines[0], path, 1), f"table '{path}'")
        rows = tuple(_row(line, path, n) for n, line in enumerate(lines[1:-1], start=2))
        return cls(head, rows, str(path))

    @cached_property
    def digest(self) -> str:
        """Names the table's content, by the fields' names of version 1: artifacts and runs keep this digest."""
        content = self.head.model_dump_json() + "".join(row.model_dump_json() for row in self.rows)
        for now, then in OLD_NAMES.items():
            content = content.replace(f'"{now}":', f'"{then}":')  # inside a string the quotes would be escaped
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def prediction_digest(self) -> str:
        """Names what the table predicts: its content, and the code that makes predictions of it."""
        code = source_digest(*MAKES_PREDICTIONS)
        made_of = [self.digest, code, *map(version, ("numpy", "scipy", "scikit-learn"))]
        return hashlib.sha256(" ".join(made_of).encode()).hexdigest()[:16]

    # What was measured

    @cached_property
    def drift(self) -> np.ndarray:
        """For each row, how slow its device was: 1 is the usual self, 1.1 ten percent slower.

        Each sentinel's rounds are compared with their median over all devices; between sentinels of a device it is
        interpolated by place in the file, which no clock that jumps can disturb. What was measured hot is left out.
        """
        by_child: dict[ChildSpec, list[tuple[int, int, float]]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            if isinstance(row, SentinelRow) and not row.hot:
                by_child[row.child].append((row.device_index, place, float(np.median(row.wall_ms))))
        points: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for found in by_child.values():
            usual = float(np.median([ms for *_, ms in found]))
            for device_index, place, ms in found:
                if len(found) > 1:
                    points[device_index].append((place, ms / usual))
        drift = np.ones(len(self.rows))
        device_indices = np.array([getattr(row, "device_index", 0) for row in self.rows])
        for device_index, of_device in points.items():
            places, ratios = zip(*sorted(of_device), strict=True)
            here = np.flatnonzero(device_indices == device_index)
            drift[here] = np.interp(here, places, smooth(ratios))
        return drift

    @cached_property
    def _summaries(self) -> dict[Subject, Summary]:
        found: dict[Subject, list[tuple[Row, float]]] = defaultdict(list)
        for row, drift in zip(self.rows, self.drift, strict=True):
            if isinstance(row, BlockRow | NetworkRow):
                found[row.subject].append((row, float(drift)))
        return {subject: summarize_rows(rounds) for subject, rounds in found.items()}

    @cached_property
    def blocks(self) -> dict[BlockAt, Summary]:
        """Each measured block with its input size, and its latency."""
        return {subject: summary for subject, summary in self._summaries.items() if not isinstance(subject, ChildSpec)}

    @cached_property
    def networks(self) -> dict[ChildSpec, Summary]:
        """Each measured whole network and its latency."""
        return {subject: summary for subject, summary in self._summaries.items() if isinstance(subject, ChildSpec)}

    @cached_property
    def num_rounds(self) -> dict[Subject, int]:
        """How often each block and network was measured."""
        return dict(Counter(row.subject for row in self.rows if isinstance(row, BlockRow | NetworkRow)))

    @cached_property
    def failures(self) -> dict[Subject, str]:
        """What could not be measured when it was last tried, and why; there may be rounds of it from before."""
        tried = (row for row in self.rows if isinstance(row, BlockRow | NetworkRow | SentinelRow | FailureRow))
        last = {row.subject: row for row in tried}
        return {subject: row.reason for subject, row in last.items() if isinstance(row, FailureRow)}

    @cached_property
    def sentinels(self) -> dict[ChildSpec, Summary]:
        """The networks that tell whether the device has changed, and their latency when the table was made."""
        found: dict[ChildSpec, list[tuple[Row, float]]] = defaultdict(list)
        for row in self.rows:
            if isinstance(row, SentinelRow):
                found[row.child].append((row, 1.0))
        return {child: summarize_rows(rounds) for child, rounds in found.items()}

    # What that predicts

    @cached_property
    def _predictors(self) -> dict[str, BlockPredictor]:
        return fit_predictors({located: summary.typical_ms for located, summary in self.blocks.items()})

    def predict(self, blocks: Iterable[BlockAt]) -> None:
        """Makes ready what is not measured of ``blocks``, all at once: one by one it would take far longer.

        Raises:
            DmaskError: when a block is neither measured nor of a kind that can be predicted.
        """
        by_kind: dict[str, list[BlockAt]] = defaultdict(list)
        for located in dict.fromkeys(blocks):
            if located not in self.blocks and located not in self._predicted and located[0].kind != "skip":
                by_kind[located[0].kind].append(located)
        for kind, wanted in by_kind.items():
            if kind not in self._predictors:
                reason = f" ({self.failures[wanted[0]]})" if wanted[0] in self.failures else ""
                raise DmaskError(
                    f"no row for {describe_subject(wanted[0])} in '{self.source}'{reason}, nor enough of its kind to"
                    " predict it",
                    f"measure it: dmask profile SPACE --classes N -o {self.source}, or dmask profile --missing"
                    f" child.json --table {self.source}",
                )
            self._predicted |= zip(wanted, self._predictors[kind].predict(wanted), strict=True)

    def can_predict(self, kind: str) -> bool:
        """Whether enough blocks of a kind were measured to predict others."""
        return kind in self._predictors

    def spread_ms(self, blocks: Sequence[BlockAt]) -> list[float]:
        """How uncertain the prediction of each block is, one standard deviation in milliseconds; 0 where measured."""
        self.predict(blocks)
        found = (self._predicted.get(located, PredictedBlock(0.0, 0.0)) for located in blocks)
        return [predicted.ms * predicted.spread for predicted in found]

    def is_measured(self, block: BlockSpec, in_size: int) -> bool:
        """Whether there is a row for this very block."""
        return (block, in_size) in self.blocks

    def raw_ms(self, block: BlockSpec, in_size: int) -> float:
        """Milliseconds of one block by itself, measured or predicted.

        Raises:
            DmaskError: as `predict`.
        """
        if block.kind == "skip":
            return 0.0
        if (block, in_size) in self.blocks:
            return self.blocks[block, in_size].typical_ms
        self.predict([(block, in_size)])
        return self._predicted[block, in_size].ms

    def block_ms(self, block: BlockSpec, in_size: int) -> float:
        """Milliseconds that one block adds to a network: `raw_ms` without what being measured alone changes.

        Raises:
            DmaskError: as `predict`.
        """
        return self.corrections.context.of(self._part(block, in_size))

    @cached_property
    def corrections(self) -> Corrections:
        """What whole networks add to sums of blocks; fitted to the networks whose blocks are known."""
        return fit_corrections(self.whole_networks())

    def whole_networks(self) -> list[WholeNetwork]:
        """The measured networks whose blocks are known."""
        unknown = self.failures.keys() - self.blocks.keys()
        networks = [child for child in self.networks if not any(b in unknown for b in child.located_blocks())]
        self.predict(located for child in networks for located in child.located_blocks())
        return [self.whole_network(child, self.networks[child].typical_ms) for child in networks]

    def whole_network(self, child: ChildSpec, measured_ms: float) -> WholeNetwork:
        """A network's parts beside its latency."""
        located = [(block, size) for block, size in child.located_blocks() if block.kind != "skip"]
        return WholeNetwork(child.resolution, tuple(self._part(block, size) for block, size in located), measured_ms)

    def _part(self, block: BlockSpec, in_size: int) -> Part:
        values = block.in_width * in_size**2 + block.out_width * block.out_size(in_size) ** 2
        return Part(self.raw_ms(block, in_size), values / 1e6, WeightBytes().block_cost(block, in_size) / 1e6)

    def correction(self, resolution: int) -> Correction:
        """The line from sums of blocks to whole networks at ``resolution`` pixels.

        Raises:
            DmaskError: when fewer than three whole networks were measured.
        """
        if not np.isfinite(self.corrections.error):
            raise DmaskError(
                f"'{self.source}' holds {len(self.whole_networks())} whole networks to correct sums of blocks by, at"
                f" least {MIN_NETWORKS} are needed",
                f"finish it: dmask profile SPACE -o {self.source}",
            )
        return self.corrections.at(resolution)

    def relative_spread(self) -> float:
        """Relative standard deviation of whole networks around what the others predict."""
        return self.corrections.spread

    def noise(self) -> float:
        """The median relative noise of the whole networks between rounds."""
        noises = sorted(summary.noise for summary in self.networks.values())
        return noises[len(noises) // 2] if noises else 0.0


def summarize_rows(rounds: Sequence[tuple[Row, float]]) -> Summary:
    """The summary of rounds, each with its drift; what was measured hot counts where there is nothing else."""
    taken = [(row, drift) for row, drift in rounds if not row.hot] or rounds
    return summarize([row.wall_ms for row, _ in taken], [drift for _, drift in taken])


def _parse(line: str, path: Path, number: int) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DmaskError(
            f"table '{path}': line {number} is not JSON: {error}", "remove that line or profile again"
        ) from error


def _row(line: str, path: Path, number: int) -> TableRow:
    try:
        return ROW.validate_python(_parse(line, path, number))
    except ValidationError as error:
        raise DmaskError(
            f"table '{path}': line {number}: {describe_validation_error(error)}", "remove that line or profile again"
        ) from error
