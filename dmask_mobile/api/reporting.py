"""Reports on runs for people: the report as an HTML file, pictures, and the status."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dmask_mobile.api.arguments import AnyPath, AnyPaths, as_path, as_paths
from dmask_mobile.clock import now
from dmask_mobile.cost_names import our_package, quantity_names
from dmask_mobile.errors import DmaskError, shown
from dmask_mobile.progress import Progress, silent

if TYPE_CHECKING:
    from dmask_mobile.records.child import ChildSpec
    from dmask_mobile.records.sweep import SweepRecord
    from dmask_mobile.report.records import Report, TableView
    from dmask_mobile.report.status import RunStatus
    from dmask_mobile.run import RunFolder
    from latency_tables.prediction.latency_model import LatencyModel
    from latency_tables.table.table import LatencyTable

logger = logging.getLogger(__name__)

MAX_RUNS = 20
MAX_FRONT_RUNS = 6  # of one sweep; the picture still shows all its runs as points
SWEEP_FILE = "sweep.json"
MAX_NETWORKS = 300  # networks of a table that are drawn


def report(runs: AnyPaths, output: AnyPath = "report.html") -> Path:
    """Writes a page about runs: the verdict, the network, its latency, the search, numerics and accuracy.

    >>> dm.report(["runs/a", "runs/b"], "report.html")
    PosixPath('report.html')

    The page is one self-contained file: it makes no network requests and works without JavaScript.

    Args:
        runs: run folders, finished or not. Parts that a run does not have yet are left out, and the page says how to
            get them. The folder of a sweep stands for the runs on its Pareto front.
        output: the path of the page; an earlier page at this path is replaced.

    Returns:
        The page's path.

    Raises:
        DmaskError: if a folder is not a run or contains a damaged file, or ``output`` exists and is not such a page.
    """
    from dmask_mobile.report.render import check_page, write_page

    output = as_path(output)
    check_page(output)
    write_page(gather_report(runs), output)
    return output


def status(run: AnyPath) -> RunStatus:
    """The finished steps of a run folder, the next step, and the command for it.

    >>> dm.status("runs/b").next.command
    'dmask export runs/b'

    Raises:
        DmaskError: if it is not a run folder, or one of its files is damaged.
    """
    from dmask_mobile.report.status import status_of
    from dmask_mobile.run import RunFolder

    return status_of(RunFolder(as_path(run)))


def plot_search(run: AnyPath, output: AnyPath) -> Path:
    """Draws the search of a run by epoch: expected cost against budget, entropy, and the probabilities of the gates.

    >>> dm.plot_search("runs/a", "search.svg")
    PosixPath('search.svg')

    Args:
        run: the run folder; its search may still be running.
        output: FILE.png or FILE.svg; an earlier picture at this path is replaced.

    Returns:
        The picture's path.

    Raises:
        DmaskError: if the folder is not a run, no epoch has ended yet, its log is damaged, or ``output`` is neither PNG
            nor SVG or exists and is not such a picture.
    """
    from dmask_mobile.pictures import check_picture, save_picture
    from dmask_mobile.report.history import read_history
    from dmask_mobile.report.search_picture import draw_search
    from dmask_mobile.run import RunFolder

    folder, output = RunFolder(as_path(run)), as_path(output)
    check_picture(output)
    record = folder.record()
    choice = folder.result().choice if folder.search_result.exists() else None
    space = record.space
    history = space and read_history(folder.metrics_path, space, choice, record.search_settings)
    if not space or not history:
        raise DmaskError(
            f"'{folder.path}' has no finished epoch of a search to draw", "search first: dmask search ... -o RUN"
        )
    save_picture(draw_search(history, f"{folder.path.name}, a search of {space.name}"), output)
    return output


def write_report_of_run(folder: RunFolder, progress: Progress = silent) -> None:
    """Writes ``report.html`` into a run folder; a problem is only reported, and earlier results are kept."""
    try:
        report(folder.path, folder.report_path)
    except (DmaskError, OSError) as error:
        logger.warning("no report: %s", error)
    except Exception as error:  # the command has done its work, and its result must not be lost
        logger.warning("no report, a fault of dmask-mobile: %s: %s", type(error).__name__, shown(error))
    else:
        progress("report", 1, 1, str(folder.report_path))


def gather_report(runs: AnyPaths) -> Report:
    """The content of `report` as one record.

    Raises:
        DmaskError: in the same cases as `report`.
    """
    from dmask_mobile import __version__
    from dmask_mobile.report.gather import gather_run
    from dmask_mobile.report.records import Report, SweepView
    from dmask_mobile.run import RunFolder

    paths = as_paths(runs)
    if not 1 <= len(paths) <= MAX_RUNS:
        raise DmaskError(f"a report shows 1 to {MAX_RUNS} runs, got {len(paths)}", "give run folders")
    if len({path.resolve() for path in paths}) < len(paths):
        raise DmaskError(f"a run was given twice: {shown(', '.join(map(str, paths)))}", "give each run once")
    sweeps = {path: _read_sweep(path / SWEEP_FILE) for path in paths if (path / SWEEP_FILE).exists()}
    found = [run for path in paths for run in (_runs_on_front(path, sweeps[path]) if path in sweeps else [path])]
    folders = [RunFolder(run) for run in {run.resolve(): run for run in found}.values()]  # each run once
    if len(folders) > MAX_RUNS:
        raise DmaskError(f"a report shows 1 to {MAX_RUNS} runs, got {len(folders)}", "give fewer runs or sweeps")
    return Report(
        created=now(),
        dmask_version=__version__,
        runs=tuple(gather_run(folder, _tables(folder)) for folder in folders),
        sweeps=tuple(SweepView(name=path.resolve().name, found=found) for path, found in sweeps.items()),
    )


def _read_sweep(path: Path) -> SweepRecord:
    """The results of a sweep.

    Raises:
        DmaskError: if the file is damaged, or a point lacks one of the sweep's costs.
    """
    from dmask_mobile.records.sweep import SweepRecord

    found = SweepRecord.read(path)
    for point in found.points:
        for cost in found.units:
            if cost not in (point.measured if cost in found.measured_costs else point.costs):
                raise DmaskError(f"'{path}': the run '{shown(point.run)}' has no {shown(cost)}", "restore the file")
    return found


def _runs_on_front(sweep: Path, found: SweepRecord) -> list[Path]:
    """The run folders of the points on a sweep's Pareto front, the most accurate first.

    Raises:
        DmaskError: if one of them is outside the sweep's folder.
    """
    points = sorted((point for point in found.points if point.on_front), key=lambda point: -point.accuracy)
    paths = [sweep / point.run for point in points[:MAX_FRONT_RUNS]]
    for path in paths:
        if not path.resolve().is_relative_to(sweep.resolve()):
            raise DmaskError(
                f"'{sweep / SWEEP_FILE}' names the run '{shown(path)}' outside its folder", "restore the file"
            )
    return paths


def _tables(folder: RunFolder) -> tuple[TableView, ...]:
    """The predictions for a run's child by the tables of its search."""
    named = folder.tables()
    if not named:
        return ()
    our_package("latency_tables")
    from latency_tables.table.table import LatencyTable

    child, names = folder.child(), quantity_names("latency", named)
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
    except DmaskError as error:  # too few networks, or a block that cannot be predicted; the rest is still shown
        return view.model_copy(update={"problem": str(error)})


def _predictions(model: LatencyModel, child: ChildSpec) -> dict[str, object]:
    """The fields of a `TableView` with the predictions of a table.

    Raises:
        DmaskError: if the table cannot predict the child.
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
