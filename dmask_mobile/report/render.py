"""Writes the page: one HTML file with a security policy that forbids it to load anything."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path

from dmask_mobile.errors import DmaskError
from dmask_mobile.outputs import check_output, write_output
from dmask_mobile.quantities import quantity
from dmask_mobile.report.comparing import comparisons, sweep_page
from dmask_mobile.report.page import run_page
from dmask_mobile.report.records import Report

MAX_BYTES = 2_000_000
MARK = '<meta name="generator" content="dmask-mobile report">'


def check_page(path: Path) -> None:
    """Checks that a page may be written to ``path``: a new HTML file, or an earlier page.

    Raises:
        DmaskError: for another suffix, and in the same cases as `check_output`.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise DmaskError(f"a report must be an HTML file, got '{path}'", "give -o FILE.html")
    check_output(path, MARK, "a report of dmask-mobile", "give another file with -o")


def write_page(report: Report, path: Path) -> None:
    """Writes the page in one step: a reader sees the old or the new page.

    Raises:
        DmaskError: if it would have more than `MAX_BYTES`.
    """
    text = render(report)
    size = len(text.encode())
    if size > MAX_BYTES:
        raise DmaskError(
            f"the report of {len(report.runs)} runs has {size:,} bytes; at most {MAX_BYTES:,} are allowed",
            "give fewer runs",
        )
    write_output(path, text)


def render(report: Report) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("dmask_mobile.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quantity"] = quantity
    style, script = (_source(name) for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        report=report,
        pages=[run_page(number, run) for number, run in enumerate(report.runs, start=1)],
        sweeps=[sweep_page(sweep) for sweep in report.sweeps],
        comparisons=comparisons(report.runs),
        mark=Markup(MARK),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        raw=_data_link(report),
    )


def _source(name: str) -> str:
    return resources.files("dmask_mobile.report").joinpath("page", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The page's Content-Security-Policy: it allows only this style and this script, by their hashes."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _data_link(report: Report) -> str:
    """The record as a ``data:`` link, which lets a reader save a file without a script."""
    content = json.dumps(report.to_dict(), allow_nan=False, separators=(",", ":"))
    return f"data:application/json;base64,{base64.b64encode(content.encode()).decode()}"
