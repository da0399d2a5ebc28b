"""The parsed page is complete, escaped and self-contained."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dmask_mobile import api
from dmask_mobile.api.reporting import gather_report
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.sweep import FailedRun, SweepPoint, SweepRecord
from dmask_mobile.report.records import Report, RunView
from dmask_mobile.report.render import MAX_BYTES, render, write_page
from dmask_mobile.run import RunFolder
from tests.dmask_mobile.report.factory import HOSTILE, searched_run, trained_run, whole_run

SECTIONS = ["verdict", "network", "latency", "gates", "prediction", "numerics", "accuracy"]
LINKS = ("href", "src", "srcset", "action", "data", "poster", "xlink:href", "background")
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements and text of a page; notes every link and each tag that is not closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.content: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in LINKS]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.content[self._open[-1]] = data
        else:
            self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return gather_report(whole_run(tmp_path_factory.mktemp("whole") / "run").path)


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    return render(report)


def test_every_section_is_there_in_order(text: str) -> None:
    page = Page(text)
    found = [name for name in page.ids if re.fullmatch(r"run-1-\w+", name)]
    assert [name.removeprefix("run-1-") for name in found if name.removeprefix("run-1-") in SECTIONS] == SECTIONS
    rest = [name for name in page.ids if name in ("front", "compare", "reproduce", "raw")]
    assert rest == ["front", "compare", "reproduce", "raw"]
    assert page.ids.index("run-1-accuracy") < page.ids.index("compare")
    assert len(page.ids) == len(set(page.ids))
    assert {"main", "nav", "header", "article"} <= set(page.tags)


def test_links_stay_inside_the_page(text: str) -> None:
    page = Page(text)
    assert {link for link in page.links if not link.startswith(("#", "data:"))} == set()
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses == set()
    assert "@import" not in text
    assert "url(" not in text


def test_text_of_others_stays_text(text: str) -> None:
    page = Page(text)
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert {name for name, _ in page.attributes if name.startswith("on") or name == "style"} == set()
    assert any(HOSTILE in part for part in page.text)


def test_the_policy_allows_this_style_and_script_and_nothing_else(text: str) -> None:
    page = Page(text)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    hashes = {
        tag: base64.b64encode(hashlib.sha256(page.content[tag].encode()).digest()).decode() for tag in page.content
    }
    assert directives == {
        "default-src": "'none'", "style-src": f"'sha256-{hashes['style']}'",
        "script-src": f"'sha256-{hashes['script']}'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_the_raw_data_is_the_record(report: Report, text: str) -> None:
    link = next(link for link in Page(text).links if link.startswith("data:application/json"))
    content = json.loads(base64.b64decode(link.partition("base64,")[2]))
    assert Report.from_dict(content, "the page") == report


def test_every_picture_has_a_title_a_description_and_a_name(text: str) -> None:
    pictures = re.findall(r"<svg [^>]*class=\"chart.*?</svg>", text, re.DOTALL)
    assert len(pictures) > 10
    for picture in pictures:
        label = re.search(r'aria-labelledby="(\S+) (\S+)"', picture)
        assert label is not None
        assert f'<title id="{label[1]}">' in picture
        assert f'<desc id="{label[2]}">' in picture


def test_numbers_are_those_of_the_record(text: str, report: Report) -> None:
    (run,) = report.runs
    words = " ".join(" ".join(Page(text).text).split())
    assert f"{run.macs:,}" in words
    assert f"{run.tables[0].predicted_ms:.4f} ms" in words
    assert "90.0%" in words


@pytest.mark.parametrize("make", [searched_run, trained_run])
def test_half_finished_runs_are_written(make: object, tmp_path: Path) -> None:
    folder = make(tmp_path / "run")  # type: ignore[operator]
    words = " ".join(Page(render(gather_report(folder.path))).text)
    assert f"dmask verify {folder.path}" in words
    assert "No exported model has been compared" in words


def test_several_runs_stand_beside_each_other(tmp_path: Path) -> None:
    folders = [whole_run(tmp_path / "a", passing=True), trained_run(tmp_path / "b"), searched_run(tmp_path / "c")]
    text = render(gather_report([folder.path for folder in folders]))
    page = Page(text)
    assert [name for name in page.ids if re.fullmatch(r"run-\d", name)] == ["run-1", "run-2", "run-3"]
    titles = re.findall(r"<figcaption>(Accuracy against [^<]*)", text)
    assert [title.partition(" on ")[0] for title in titles] == [
        "Accuracy against predicted latency", "Accuracy against multiply-adds", "Accuracy against parameters",
    ]  # fmt: skip


def test_unknown_numbers_are_written_as_unknown(report: Report) -> None:
    (run,) = report.runs
    assert run.history is not None
    nothing = (None,) * len(run.history.epochs)
    entropy = tuple(curve.model_copy(update={"values": nothing}) for curve in run.history.entropy)
    gates = tuple(
        gate.model_copy(update={"probabilities": (nothing,) * len(gate.options), "last": (None,) * len(gate.options)})
        for gate in run.history.gates
    )
    history = run.history.model_copy(update={"entropy": entropy, "gates": gates})
    text = render(report.model_copy(update={"runs": (run.model_copy(update={"history": history}),)}))
    assert "Entropy of the gates" not in text
    assert "unknown" in text
    assert "nan" not in re.sub(r"base64,[^\"]*", "", text)


def test_a_thousand_classes_and_long_names_fit(tmp_path: Path) -> None:
    names = tuple(f"{number} {'long ' * 20}name" for number in range(1000))
    folder = whole_run(tmp_path / "run", names=names)
    path = api.report(folder.path, tmp_path / "page.html")
    assert path.stat().st_size < MAX_BYTES / 2
    assert "1,000 classes are too many for a picture" in path.read_text()


def test_a_page_that_is_too_large_is_refused(report: Report, tmp_path: Path) -> None:
    run = report.runs[0].model_copy(update={"notes": ("x" * 1000,) * 1000})
    runs: tuple[RunView, ...] = (run,) * 2
    with pytest.raises(DmaskError, match=r"the report of 2 runs has [\d,]+ bytes; at most 2,000,000"):
        write_page(report.model_copy(update={"runs": runs}), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_only_a_page_of_ours_is_replaced(report: Report, tmp_path: Path) -> None:
    folder = RunFolder(searched_run(tmp_path / "run").path)
    path = tmp_path / "page.html"
    assert api.report(folder.path, path) == path
    api.report(folder.path, path)
    path.write_text("<!doctype html><p>mine")
    with pytest.raises(DmaskError, match="is not a report of dmask-mobile; give another file"):
        api.report(folder.path, path)
    assert path.read_text().endswith("mine")
    with pytest.raises(DmaskError, match=r"a report must be an HTML file, got '.*page\.txt'"):
        api.report(folder.path, tmp_path / "page.txt")


def test_a_sweep_shows_its_front_and_the_runs_on_it(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    for number in range(3):
        trained_run(sweep / "runs" / f"{number}")
    costs, accuracies = (0.05, 0.07, 0.09), (0.8, 0.7, 0.9)  # the second is worse than the first in both
    points = tuple(
        SweepPoint(run=f"runs/{n}", seed=0, budgets={"latency": c}, costs={"latency": c}, accuracy=a, on_front=n != 1)
        for n, (c, a) in enumerate(zip(costs, accuracies, strict=True))
    )
    record = SweepRecord(
        design_digest="d" * 16, num_runs=4, units={"latency": "ms"}, points=points,
        failed=(FailedRun(run="runs/3", reason=HOSTILE),),
    )  # fmt: skip
    record.write(sweep / "sweep.json")
    report = gather_report(sweep)
    assert [run.name for run in report.runs] == ["2", "0"]
    text = render(report)
    assert "<figcaption>Accuracy against latency" in text
    assert "3 of 4 runs, 2 of them on the Pareto front" in text
    assert any(HOSTILE in part for part in Page(text).text)
    outside = record.model_copy(update={"points": (points[0].model_copy(update={"run": "../elsewhere"}),)})
    outside.write(sweep / "sweep.json")
    with pytest.raises(DmaskError, match="outside its folder"):
        gather_report(sweep)
    lacking = record.model_copy(update={"units": {"latency": "ms", "macs": "macs"}})
    lacking.write(sweep / "sweep.json")
    with pytest.raises(DmaskError, match="the run 'runs/0' has no macs"):
        gather_report(sweep)


def test_a_gate_that_the_budget_overruled_is_told(report: Report) -> None:
    (run,) = report.runs
    assert run.history is not None
    gates = tuple(
        gate.model_copy(update={"last": (0.9, 0.1)}) if gate.name == "stage1.block1.kernel" else gate
        for gate in run.history.gates
    )
    assert "(gates: " not in render(report)
    history = run.history.model_copy(update={"gates": gates})
    text = render(report.model_copy(update={"runs": (run.model_copy(update={"history": history}),)}))
    assert text.count("(gates: 3)") == 1  # the child has 5
