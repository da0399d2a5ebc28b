"""A verification as Markdown for pull requests, and as JUnit XML for CI.

Labels, units and notes may come from untrusted files, so they are escaped for the format.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from dmask_mobile.errors import MAX_MESSAGE, DmaskError, shown
from dmask_mobile.markdown import as_markdown
from dmask_mobile.outputs import check_output, is_stream
from dmask_mobile.quantities import TABLE_UNITS, quantity
from dmask_mobile.records.verification import BUDGET_SUFFIX, Check, Verification

MARKDOWN_MARK = "<!-- written by dmask verify -->"
JUNIT_MARK = '<testsuites name="dmask verify '
MARKS = {"passed": "✅", "failed": "❌", "not verified": "⚠️", "not predicted": "➖"}
COLUMNS = ("artifact", "quantity", "predicted", "measured", "allowed", "verdict", "note")
ALIGNED = "| --- | --- | ---: | ---: | ---: | --- | --- |"


def check_reports(markdown: Path | None, junit: Path | None) -> None:
    """Checks that these reports may be written: to streams, new files, empty files or earlier reports.

    Raises:
        DmaskError: if both have the same path, and in the same cases as `check_output`.
    """
    if markdown is not None and junit is not None and markdown.resolve() == junit.resolve():
        raise DmaskError(f"--markdown and --junit both name '{shown(markdown)}'", "give two files")
    for path, mark, option in ((markdown, MARKDOWN_MARK, "--markdown"), (junit, JUNIT_MARK, "--junit")):
        if path is not None and not is_stream(path):
            check_output(path, mark, f"a report of dmask verify {option}")


def to_markdown(verification: Verification) -> str:
    """The verdict in one line, the checks that did not pass, the main figures by artifact; all checks folded below."""
    wrong = [c for c in verification.checks if c.verdict != "not predicted" and verification.verdict_of(c) != "passed"]
    lines = [MARKDOWN_MARK, _headline(verification)]
    if wrong:
        lines += ["", *_table(verification, wrong)]
    lines += _main_figures(verification)
    summary = f"<summary>all {len(verification.checks)} checks</summary>"
    lines += ["", "<details>", summary, "", *_table(verification, verification.checks), "", "</details>"]
    return "\n".join(lines) + "\n"


def to_junit(verification: Verification) -> str:
    """A test suite for each artifact and a test case for each quantity; a quantity that is not verified is an error."""
    root = ElementTree.Element("testsuites", name=_plain(f"dmask verify {verification.child_digest}"))
    for artifact, group in groupby(verification.checks, key=lambda check: check.artifact):
        checks = list(group)
        verdicts = [verification.verdict_of(check) for check in checks]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_plain(artifact),
            timestamp=_plain(verification.created),
            tests=str(len(checks)),
            failures=str(verdicts.count("failed")),
            errors=str(verdicts.count("not verified")),
            skipped=str(verdicts.count("not predicted") + verdicts.count("not verified, allowed")),
        )
        for check, verdict in zip(checks, verdicts, strict=True):
            case = ElementTree.SubElement(
                suite, "testcase", classname=_plain(f"dmask.{artifact}"), name=_plain(check.quantity)
            )
            if verdict != "passed":
                tag = {"failed": "failure", "not verified": "error"}.get(verdict, "skipped")
                ElementTree.SubElement(case, tag, message=_plain(_message(check, verdict)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _headline(verification: Verification) -> str:
    """The verdict, and the number of lines by verdict."""
    verdicts = [verification.verdict_of(check) for check in verification.checks]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts)))
    verdict = "verified" if verification.passed else "**NOT verified**"
    return f"### Child `{verification.child_digest}`: {verdict} ({counts or 'nothing was checked'})"


def _table(verification: Verification, checks: Sequence[Check]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield ALIGNED
    for check in checks:
        yield _row(
            check.artifact,
            check.quantity,
            quantity(check.predicted, check.unit),
            quantity(check.measured, check.unit),
            check.what_is_allowed,
            f"{MARKS[check.verdict]} {verification.verdict_of(check)}",
            check.note,
        )


def _main_figures(verification: Verification) -> Iterator[str]:
    """A table with a row for each artifact: measured accuracy, latency and size; memory and energy if measured."""
    measured = [check for check in verification.checks if check.artifact != "run" and check.measured is not None]
    of_device = [name for name in TABLE_UNITS if name == "latency" or any(_is_about(c, name) for c in measured)]
    artifacts = dict.fromkeys(check.artifact for check in verification.checks if check.artifact != "run")
    if artifacts:
        columns = ("accuracy", *of_device, "size")
        yield from ("", f"| artifact | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}")
    for artifact in artifacts:
        checks = [check for check in measured if check.artifact == artifact]
        accuracies = [
            f"{quantity(c.measured, c.unit)}{c.quantity.removeprefix('accuracy')}"
            for c in checks
            if c.quantity.partition(" ")[0] == "accuracy"
        ]
        figures = [
            [
                f"{quantity(c.measured, c.unit)} (predicted {quantity(c.predicted, c.unit)})"
                for c in checks
                if _is_about(c, name)
            ]
            for name in of_device
        ]
        sizes = [quantity(c.measured, c.unit) for c in checks if c.quantity == "size"]
        yield _row(artifact, *(", ".join(cells) or "-" for cells in (accuracies, *figures, sizes)))


def _is_about(check: Check, name: str) -> bool:
    """Whether a line is about a metric of the device, and not about a budget for it."""
    word = check.quantity.partition(" ")[0].partition("@")[0]
    return word == name and not check.quantity.endswith(BUDGET_SUFFIX)


def _message(check: Check, verdict: str) -> str:
    found = (
        f"{verdict}: predicted {quantity(check.predicted, check.unit)}, measured"
        f" {quantity(check.measured, check.unit)}, allowed {check.what_is_allowed}"
    )
    return f"{found}; {check.note}" if check.note else found


def _row(*cells: str) -> str:
    return f"| {' | '.join(as_markdown(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """The text without characters that XML does not allow: control characters and lone surrogates."""
    return shown(text, MAX_MESSAGE)
