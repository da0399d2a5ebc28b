"""Verifications as Markdown and as JUnit XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_markdown_shows_the_verdict_what_failed_and_the_main_figures_first() -> None:
    accuracy = Check(
        artifact="onnx", quantity="accuracy", unit="share", predicted=0.9, measured=0.875, allowed="0.05",
        verdict="passed",
    )  # fmt: skip
    before, folded = to_markdown(verification(*CHECKS, accuracy)).split("<details>")
    assert before.splitlines() == [
        "<!-- written by dmask verify -->",
        f"### Child `{'d' * 16}`: **NOT verified** (1 failed, 1 not predicted, 1 not verified, 2 passed)",
        "",
        "| artifact | quantity | predicted | measured | allowed | verdict | note |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
        "| onnx | size | 1.50 ms | 2.00 ms | ± 10% | ❌ failed | too \\| big &lt;&amp;&gt; |",
        "| onnx | latency | 1.50 ms | - | ± 10% | ⚠️ not verified | no device |",
        "",
        "| artifact | accuracy | latency | size |",
        "| --- | ---: | ---: | ---: |",
        "| onnx | 87.50% | - | 2.00 ms |",
        "| coreml | - | - | - |",
        "",
    ]
    lines = folded.splitlines()
    assert lines[1:3] == ["<summary>all 5 checks</summary>", ""]
    assert lines[-2:] == ["", "</details>"]
    assert len(lines) == 5 + len(CHECKS) + 1 + 2
    passed = to_markdown(verification(check("onnx", "latency", "passed")))
    headline = f"### Child `{'d' * 16}`: verified (1 passed)\n\n| artifact | accuracy | latency | size |"
    assert passed.startswith(f"<!-- written by dmask verify -->\n{headline}")
    assert "| onnx | - | 2.00 ms (predicted 1.50 ms) | - |" in passed


HOSTILE = "a|b `c` <img src=x onerror=1> [l](http://x) ![i](y) **d** \x1b[31m \x00 \ud800 \uffff\nnew & old \\"


def test_markdown_shows_measured_memory_and_energy_in_the_main_table() -> None:
    memory, energy = (
        Check(
            artifact="onnx", quantity=name, unit=unit, predicted=2048, measured=measured, allowed="15%",
            verdict="passed",
        )
        for name, unit, measured in (("memory@pixel", "bytes", 3072), ("energy", "mJ", None))
    )  # fmt: skip
    budget = memory.model_copy(update={"quantity": "memory@pixel budget", "measured": 9216})
    text = to_markdown(verification(*CHECKS, memory, budget, energy))
    before, _, _ = text.partition("<details>")
    assert before.splitlines()[-5:-1] == [
        "| artifact | accuracy | latency | memory | size |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| onnx | - | - | 3.0 KiB (predicted 2.0 KiB) | 2.00 ms |",
        "| coreml | - | - | - | - |",
    ]
    measured_energy = energy.model_copy(update={"measured": 0.5})
    assert "| artifact | accuracy | latency | memory | energy | size |" in to_markdown(
        verification(memory, measured_energy)
    )


def test_markdown_escapes_what_files_say() -> None:
    hostile = Check(
        artifact=HOSTILE, quantity=HOSTILE, unit=HOSTILE, predicted=1, measured=2, allowed=HOSTILE, verdict="failed",
        note=HOSTILE,
    )  # fmt: skip
    text = to_markdown(verification(hostile))
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    hostile_rows = [row for row in rows if "new &amp; old" in row]
    assert len(hostile_rows) == 3  # failed, main figures, all
    for row in hostile_rows:
        assert not re.search(r"(?<!\\)[`\[\]*]", row)
        assert "<" not in row
        assert row.isprintable()
    assert len(re.findall(r"(?<!\\)\|", hostile_rows[0])) == 8  # seven cells
    text.encode()


def test_junit_is_xml_whatever_files_say() -> None:
    hostile = check(HOSTILE, HOSTILE, "failed", HOSTILE)
    text = to_junit(verification(hostile))
    text.encode()
    case = ElementTree.fromstring(text).find("testsuite/testcase")
    assert case is not None
    name = case.get("name")
    assert name is not None
    assert name.startswith("a|b `c` <img src=x onerror=1>")
    assert r"\x1b[31m \x00 \ud800 \uffff\nnew & old" in name


@given(st.text())
def test_any_note_makes_xml_and_one_row(note: str) -> None:
    found = verification(check("onnx", "size", "failed", note))
    assert ElementTree.fromstring(to_junit(found)).find("testsuite/testcase/failure") is not None
    assert sum(line.startswith("| onnx | size |") for line in to_markdown(found).splitlines()) == 2


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
