"""What people see of runs: the report, one HTML file, and what is next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, AnyPaths, as_path, as_paths
from dmask_mobile.clock import now
from dmask_mobile.cost_names import latency_names, our_package
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.report.records import Report, TableView
    from dmask_mobile.report.status import RunStatus
    from dmask_mobile.run import RunFolder
    from latency_tables.prediction.latency_model import LatencyModel
    from latency_tables.table.table import LatencyTable

MAX_RUNS = 20
MAX_NETWORKS = 300  # of a table that are drawn


def report(runs: AnyPaths, output: AnyPath = "report.html") -> Path:
    """Writes a page about runs: the verdict, the network, its latency, the search, numerics, accuracy.

    The page is one file that needs nothing else: it calls nobody, and works without JavaScript.

    Args:
        runs: run folders, finished or not; what a run does not have yet is left out, and the page says how to get it.
        output: the page; a page that was written here before is replaced.

    Returns:
        The page's path.

    Raises:
        DmaskError: when a folder is no run or holds a damaged file, and when ``output`` is no file of ours.
    """
    from dmask_mobile.report.render import check_page, write_page

    output = as_path(output)
    check_page(output)
    write_page(gather_report(runs), output)
    return output


def status(run: AnyPath) -> RunStatus:
    """What a run folder holds, what is next, and the command for it.

    Raises:
        DmaskError: when it is no run folder, or one of its files is damaged.
    """
    from dmask_mobile.report.status import status_of
    from dmask_mobile.run import RunFolder

    return status_of(RunFolder(as_path(run)))


def write_report_of_run(folder: RunFolder, progress: Progress = silent) -> None:
    """Writes ``report.html`` into a run folder; what is wrong is told, but costs nothing that was done before."""
    try:
        report(folder.path, folder.report_path)
    except DmaskError as error:
        progress("report", 1, 1, f"not written: {error}")
    else:
        progress("report", 1, 1, str(folder.report_path))


def gather_report(runs: AnyPaths) -> Report:
    """Everything that `report` shows, as one record.

    Raises:
        DmaskError: as `report`.
    """
    from dmask_mobile import __version__
    from dmask_mobile.report.gather import gather_run
    from dmask_mobile.report.records import Report
    from dmask_mobile.run import RunFolder

    paths = as_paths(runs)
    if not 1 <= len(paths) <= MAX_RUNS:
        raise DmaskError(f"a report is about 1 to {MAX_RUNS} runs, got {len(paths)}", "give run folders")
    if len({path.resolve() for path in paths}) < len(paths):
        raise DmaskError(f"a run was given twice: {shown(', '.join(map(str, paths)))}", "give each run once")
    folders = [RunFolder(path) for path in paths]
    views = tuple(gather_run(folder, _tables(folder)) for folder in folders)
    return Report(created=now(), dmask_version=__version__, runs=views)


def _tables(folder: RunFolder) -> tuple[TableView, ...]:
    """What the tables of a run's search say of its child."""
    named = folder.tables()
    if not named:
        return ()
    our_package("latency_tables")
    from latency_tables.table.table import LatencyTable

    child, names = folder.child(), latency_names(named)
    return tuple(_table_view(name, names[name], LatencyTable.read(path), child) for name, path in named.items())


def _table_view(name: str, cost: str, table: LatencyTable, child: ChildSpec) -> TableView:
    from dmask_mobile.report.records import TableView
    from latency_tables.prediction.latency_model import LatencyModel

    head = table.head
    view = TableView(
        name=name,
        cost=cost,
        digest=table.digest,
        device=head.device,
        runtime=f"{head.runtime} {head.runtime_version}",
        precision=head.precision,
        delegate=head.delegate,
        threads=head.threads,
        emulated=head.emulated,
        created=head.created,
        num_blocks=len(table.blocks),
        noise=table.noise(),
    )
    try:
        return TableView.model_validate({**view.model_dump(), **_predictions(LatencyModel(table), child)})
    except DmaskError as error:  # too few networks, or a block that it cannot predict: the rest is worth showing
        return view.model_copy(update={"problem": str(error)})


def _predictions(model: LatencyModel, child: ChildSpec) -> dict[str, object]:
    """The fields of a `TableView` that say what the table predicts.

    Raises:
        DmaskError: when it cannot predict the child.
    """
    from dmask_mobile.costs.latency import Latency
    from dmask_mobile.report.records import BlockLatency, NetworkPoint
    from latency_tables.prediction.correction import predicted_by_others

    estimate, line = Latency(model).estimate(child), model.correction(child.resolution)
    located = child.located_blocks()
    blocks = tuple(
        BlockLatency(
            predicted_ms=0.0 if block.kind == "skip" else line.scale * model.block_ms(block, size),
            alone_ms=model.raw_ms(block, size) if model.is_measured(block, size) else None,
            spread_ms=spread,
        )
        for (block, size), spread in zip(located, model.spread_ms(located), strict=True)
    )
    networks = model.whole_networks()
    points = zip(networks, predicted_by_others(networks), strict=True)
    return {
        "error": model.corrections.error,
        "spread": model.relative_spread(),
        "predicted_ms": estimate.value,
        "spread_ms": estimate.spread,
        "offset_ms": line.offset,
        "blocks": blocks,
        "networks": tuple(
            NetworkPoint(resolution=network.resolution, predicted_ms=predicted, measured_ms=network.measured_ms)
            for network, predicted in list(points)[:MAX_NETWORKS]
        ),
    }
