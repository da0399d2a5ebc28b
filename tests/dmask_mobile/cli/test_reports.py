"""Verifications as Markdown and as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from dmask_mobile.cli.reports import to_junit, to_markdown
from dmask_mobile.records.verification import Check, Verdict, Verification


def check(artifact: str, quantity: str, verdict: Verdict, note: str = "") -> Check:
    return Check(
        artifact=artifact, quantity=quantity, unit="ms", predicted=1.5, measured=None if "not" in verdict else 2.0,
        allowed="10%", verdict=verdict, note=note,
    )  # fmt: skip


def verification(*checks: Check, allow: tuple[str, ...] = ()) -> Verification:
    return Verification(child_digest="d" * 16, created="2026-01-01T00:00:00", checks=checks, allow_unverified=allow)


CHECKS = (
    check("onnx", "max error", "passed"),
    check("onnx", "size", "failed", "too | big <&>"),
    check("onnx", "latency", "not verified", "no device"),
    check("coreml", "latency", "not predicted"),
)
PIXEL = check("run", "latency@pixel budget", "not verified")


def test_junit_counts_what_failed_and_what_nobody_looked_at() -> None:
    root = ElementTree.fromstring(to_junit(verification(*CHECKS)))
    onnx, coreml = root.findall("testsuite")
    assert onnx.attrib | {"timestamp": ""} == {
        "name": "onnx", "timestamp": "", "tests": "3", "failures": "1", "errors": "1", "skipped": "0",
    }  # fmt: skip
    assert (coreml.get("tests"), coreml.get("skipped")) == ("1", "1")
    failure = onnx.find("testcase[@name='size']/failure")
    assert failure is not None
    assert failure.get("message") == "failed: predicted 1.50 ms, measured 2.00 ms, allowed ± 10%; too | big <&>"
    assert onnx.find("testcase[@name='max error']/failure") is None
    assert onnx.find("testcase[@name='latency']/error") is not None


def test_junit_of_what_is_excused_is_skipped() -> None:
    root = ElementTree.fromstring(to_junit(verification(*CHECKS, allow=("latency",))))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("errors"), suite.get("skipped")) == ("0", "1")


def test_markdown_has_a_row_a_check_and_escapes_pipes() -> None:
    lines = to_markdown(verification(*CHECKS)).splitlines()
    assert lines[0] == f"### Child `{'d' * 16}`: **NOT verified**"
    assert len(lines) == 4 + len(CHECKS)
    assert lines[5] == "| onnx | size | 1.50 ms | 2.00 ms | ± 10% | ❌ failed | too \\| big <&> |"
    assert to_markdown(verification(CHECKS[0])).startswith(f"### Child `{'d' * 16}`: verified")


@pytest.mark.parametrize(
    ("checks", "allow", "passed"),
    [
        ((), (), False),
        (CHECKS[:1], (), True),
        (CHECKS[3:], (), False),  # nothing was looked at
        ((CHECKS[0], CHECKS[3]), (), True),
        ((CHECKS[0], CHECKS[2]), (), False),
        ((CHECKS[0], CHECKS[2]), ("latency",), True),
        ((CHECKS[0], CHECKS[2]), ("size",), False),
        (CHECKS, ("latency", "size"), False),  # what failed cannot be allowed
        ((CHECKS[0], PIXEL), ("latency",), True),
        ((CHECKS[0], PIXEL), ("latency@pixel",), True),
        ((CHECKS[0], PIXEL), ("latency@pixel budget",), True),
        ((CHECKS[0], PIXEL), ("latency@galaxy",), False),
        ((CHECKS[0], check("run", "my cost budget", "not verified")), ("my cost",), True),
    ],
)
def test_passed(checks: tuple[Check, ...], allow: tuple[str, ...], passed: bool) -> None:
    assert verification(*checks, allow=allow).passed is passed
