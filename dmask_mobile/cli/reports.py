"""A verification as Markdown for pull requests, and as JUnit XML for CI."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import groupby

from dmask_mobile.cli.tables import quantity, what_is_allowed
from dmask_mobile.records.verification import Check, Verification

MARKS = {"passed": "✅", "failed": "❌", "not verified": "⚠️", "not predicted": "➖"}


def to_markdown(verification: Verification) -> str:
    """A heading with the verdict and one table of all checks."""
    verdict = "verified" if verification.passed else "**NOT verified**"
    lines = [
        f"### Child `{verification.child_digest}`: {verdict}",
        "",
        "| artifact | quantity | predicted | measured | allowed | verdict | note |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for check in verification.checks:
        cells = (
            check.artifact,
            check.quantity,
            quantity(check.predicted, check.unit),
            quantity(check.measured, check.unit),
            what_is_allowed(check),
            f"{MARKS[check.verdict]} {verification.verdict_of(check)}",
            check.note,
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def to_junit(verification: Verification) -> str:
    """A test suite for each artifact, a test case for each quantity; what was not looked at is an error."""
    root = ElementTree.Element("testsuites", name=f"dmask verify {verification.child_digest}")
    for artifact, group in groupby(verification.checks, key=lambda check: check.artifact):
        checks = list(group)
        verdicts = [verification.verdict_of(check) for check in checks]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=artifact,
            timestamp=verification.created,
            tests=str(len(checks)),
            failures=str(verdicts.count("failed")),
            errors=str(verdicts.count("not verified")),
            skipped=str(verdicts.count("not predicted") + verdicts.count("not verified, allowed")),
        )
        for check, verdict in zip(checks, verdicts, strict=True):
            case = ElementTree.SubElement(suite, "testcase", classname=f"dmask.{artifact}", name=check.quantity)
            if verdict != "passed":
                tag = {"failed": "failure", "not verified": "error"}.get(verdict, "skipped")
                ElementTree.SubElement(case, tag, message=_message(check, verdict))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _message(check: Check, verdict: str) -> str:
    found = (
        f"{verdict}: predicted {quantity(check.predicted, check.unit)}, measured"
        f" {quantity(check.measured, check.unit)}, allowed {what_is_allowed(check)}"
    )
    return f"{found}; {check.note}" if check.note else found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
