"""Makes a `RunView` from a run folder; everything is read and computed here, nothing in the templates."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.files import parse_json, read_text
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.verification import Verification
from dmask_mobile.report.accuracies import accuracy_view
from dmask_mobile.report.commands import commands_of
from dmask_mobile.report.history import read_history
from dmask_mobile.report.records import AccuracyView, BlockView, Missing, RunView, SearchView, Section, TableView
from dmask_mobile.report.verdicts import artifact_views, budget_views, headline, ordered, state_of
from dmask_mobile.run import RunFolder, RunRecord, SearchResultRecord

Found = TypeVar("Found", bound=FileRecord)

MAX_NOTE = 500  # characters


def gather_run(folder: RunFolder, tables: Sequence[TableView]) -> RunView:
    """Everything that the page shows about one run.

    Args:
        folder: the run.
        tables: its latency tables with their predictions for its child.

    Raises:
        DmaskError: if it is not a run folder, has no child yet, or one of its files is damaged. A file in an old format
            that can no longer be read is left out, and the page says so.
    """
    record, child = folder.record(), folder.child()
    folder.check_weights()
    notes: list[str] = []
    result = _result(folder, record, child)
    verification = _current(Verification, folder.verification_path, notes)
    if verification is not None and verification.child_digest != child.digest():
        notes.append("verification.json is about another child, and is left out: verify again")
        verification = None
    artifacts = folder.artifacts()
    accuracies = _accuracies(folder, record, notes)
    checks, verdicts = ordered(verification)
    state = state_of(verification, checks)
    history = None
    if record.space is not None:
        choice = result.choice if result else None
        history = read_history(folder.metrics_path, record.space, choice, record.search_settings)
    blocks = _blocks(child, record.space)
    best = next(iter(accuracies), None)
    view = RunView(
        name=folder.path.resolve().name,
        created=record.created,
        state=state,
        headline=headline(state, verdicts),
        child_name=child.name,
        child_digest=child.digest(),
        resolution=child.resolution,
        num_classes=child.classes,
        macs=sum(block.macs for block in blocks),
        params=sum(block.params for block in blocks),
        accuracy=best.accuracy if best else record.accuracy,
        accuracy_interval=best.interval if best else None,
        accuracy_split=_split(best, record),
        blocks=blocks,
        budgets=budget_views(record, result, tables, verification),
        tables=tuple(tables),
        search=_search(result, record),
        history=history,
        artifacts=artifact_views(artifacts, verification),
        checks=checks,
        verdicts=verdicts,
        verified_at=verification.created if verification else "",
        accuracies=accuracies,
        space_name=record.space.name if record.space else "",
        data=record.data or "",
        notes=tuple(shown(note, MAX_NOTE) for note in (*record.data_notes, *notes)),
        missing={},
        commands=commands_of(folder, record, artifacts, tables, verification is not None, result),
        versions=dict(record.versions),
        digests=_digests(record, child, tables),
    )
    return view.model_copy(update={"missing": _missing(view, record, folder)})


def _result(folder: RunFolder, record: RunRecord, child: ChildSpec) -> SearchResultRecord | None:
    """The result of the search; None for a network that was not found by a search."""
    if record.space is None or not folder.search_result.exists():
        return None
    return folder.result()


def _current(kind: type[Found], path: Path, notes: list[str]) -> Found | None:
    """The record in a file, if it exists; a record in an old format is left out with a note.

    Raises:
        DmaskError: if it is damaged.
    """
    if not path.exists():
        return None
    try:
        return kind.read(path)
    except DmaskError as error:
        if not _is_of_another_version(kind, path):
            raise
        notes.append(f"left out: {error}")
        return None


def _is_of_another_version(kind: type[FileRecord], path: Path) -> bool:
    try:
        content = parse_json(read_text(path, kind.max_bytes))
    except (OSError, ValueError, DmaskError):
        return False
    if not isinstance(content, dict) or content.get("format") != kind.file_format:
        return False
    version, oldest = content.get("version"), kind.oldest_version or kind.file_version
    return type(version) is int and not oldest <= version <= kind.file_version


def _blocks(child: ChildSpec, space: SearchSpace | None) -> tuple[BlockView, ...]:
    """Each block, with the widest child's block if the child belongs to ``space``."""
    widest = space.child(space.largest()).blocks if space is not None else ()
    fits = space is not None and len(widest) == len(child.blocks)
    names = [slot.name for slot in space.slots] if space is not None and fits else []
    macs, params = Macs(), Params()
    return tuple(
        BlockView(
            name=names[number] if fits else f"block {number + 1}",
            block=block,
            widest=widest[number] if fits else None,
            in_size=size,
            out_size=block.out_size(size),
            macs=int(macs.block_cost(block, size)),
            params=int(params.block_cost(block, size)),
        )
        for number, (block, size) in enumerate(child.located_blocks())
    )


def _accuracies(folder: RunFolder, record: RunRecord, notes: list[str]) -> tuple[AccuracyView, ...]:
    """The accuracies, the test split first.

    If the data has no test split, both files are about the validation images, and only one is shown.
    """
    views: list[AccuracyView] = []
    for path in (folder.test_path, folder.val_path):
        found = _current(AccuracyRecord, path, notes)
        if found is None or found.split in {view.split for view in views}:
            continue
        if record.weights_sha256 not in (None, found.weights_sha256):
            notes.append(f"{path.name} is about other weights than the current ones, and is left out: dmask test RUN")
            continue
        opened = found.times_opened if found.split == "test" else 1
        note = (
            f"The test split was opened {opened} times for this run: do not choose networks by it."
            if opened > 1
            else ""
        )
        views.append(accuracy_view(found, note))
    return tuple(views)


def _split(found: AccuracyView | None, record: RunRecord) -> str:
    if found is not None:
        return f"{found.num_images:,} {'test' if found.split == 'test' else 'validation'} images"
    return "validation images" if record.accuracy is not None else ""


def _search(result: SearchResultRecord | None, record: RunRecord) -> SearchView | None:
    if result is None:
        return None
    match result.derivation:
        case "exact":
            sentence = f"No child within the budget has a higher score by the gates than this one ({result.score:.3f})."
        case "bounded":
            sentence = (
                f"No child within the budgets exceeds the score {result.score:.3f} by more than {result.gap:.3f}."
            )
        case "ranked":
            found = [candidate.accuracy for candidate in result.candidates]
            sentence = f"The best of {len(found)} children within the budgets, with the supernet's weights"
            sentence += f": accuracy {found[0]:.1%}; the last one has {found[-1]:.1%}." if found else "."
            exported = result.exported_accuracies
            if exported:
                sentence += f" Of these, the best {len(exported)} were exported: accuracies from {min(exported):.1%} to"
                sentence += f" {max(exported):.1%} in {result.rank_format} {result.rank_precision}."
    if result.trials:
        accuracies = [trial.accuracy for trial in result.trials]
        sentence += f" The search trained {len(accuracies)} children for a short time, to accuracies from"
        sentence += f" {min(accuracies):.1%} to {max(accuracies):.1%}."
    if result.lower_bound_relaxed and len(record.budgets) == 1:
        sentence += " No child has a cost within 5% below the budget; the cost of this one is lower."
    return SearchView(
        derivation=result.derivation,
        sentence=sentence,
        entropy=result.entropy,
        warnings=tuple(shown(text, MAX_NOTE) for text in result.warnings),
    )


def _digests(record: RunRecord, child: ChildSpec, tables: Sequence[TableView]) -> dict[str, str]:
    """The digests that identify the inputs of the run by their content."""
    found = {"child": child.digest()}
    if record.space is not None:
        found["space"] = record.space.digest()
    found |= {f"table {table.name}": table.digest for table in tables}
    known = {"data": record.data_digest, "weights (SHA-256)": record.weights_sha256}
    return found | {name: value for name, value in known.items() if value is not None}


def _missing(view: RunView, record: RunRecord, folder: RunFolder) -> dict[Section, Missing]:
    """The reason why each missing part of the page is missing, and the commands that make it."""
    run, found = shlex.quote(str(folder.path)), dict[Section, Missing]()
    has_weights = folder.weights_path.exists()
    if not view.checks:
        steps = [] if has_weights else [f"dmask train {run}"]
        steps += [] if view.artifacts else [f"dmask export {run} --format onnx,coreml"]
        found["verdict"] = Missing(why="This run has no verification yet.", commands=(*steps, f"dmask verify {run}"))
        found["numerics"] = found["verdict"]
    if not any(table.blocks for table in view.tables):
        found["latency"] = found["prediction"] = _no_latency(view)
    if view.history is None and record.space is None:
        found["gates"] = Missing(why="This network was not found by a search, so there are no gates to show.")
    elif view.history is None:
        found["gates"] = Missing(why="The log of the search, search/metrics.jsonl, is not in the run folder.")
    if not view.accuracies:
        train = (
            () if has_weights and record.data else (f"dmask train {run} --data {shlex.quote(record.data or 'DATA')}",)
        )
        found["accuracy"] = Missing(
            why="The classes that the network confuses are not known yet.", commands=(*train, f"dmask test {run}")
        )
    return found


def _no_latency(view: RunView) -> Missing:
    if view.tables:
        return Missing(why=f"The latency table does not have this: {view.tables[0].problem}")
    return Missing(
        why="This run has no latency table. A search with a latency table stores a copy of it in the run.",
        commands=(
            "dmask profile SPACE -o table.jsonl",
            "dmask search SPACE --data DATA --budget latency=MS --table table.jsonl -o RUN",
        ),
    )
