"""Writes the reference pages of the documentation site from the code, each time the site is built.

MkDocs calls `on_files`. The pages: the command line (typer writes it from the commands), the Python API (mkdocstrings
fills it from docstrings), the file formats with a JSON schema for each (from the records).
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from dmask_mobile.records.base import FileRecord

API = "dmask_mobile.api"  # where `dmask_mobile` takes its names from; some are folders of the package as well
WITHOUT_MEMBERS = ("Machine",)  # made by users, but its methods serve the library
MODULES = (
    "dmask_mobile.records.space",
    "dmask_mobile.records.child",
    "dmask_mobile.records.recipe",
    "latency_tables.table.rows",
    "dmask_mobile.run",
    "dmask_mobile.records.accuracy",
    "dmask_mobile.records.openings",
    "dmask_mobile.records.artifact",
    "export.golden",
    "latency_tables.devices.native_output",
    "dmask_mobile.records.verification",
    "dmask_mobile.records.sweep",
    "dmask_mobile.report.records",
    "latency_tables.devices.options",
)
"""Where the records that have a file of their own are defined, in the order of the page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to the files of the site."""
    for uri, content in generated_pages():
        files.append(File.generated(config, uri, content=content))
    return files


def generated_pages() -> Iterator[tuple[str, str]]:
    """Path below the site's root and content of each generated file."""
    yield "reference/command_line.md", command_line_page()
    yield "reference/python_api.md", python_page()
    yield "reference/files.md", files_page()
    for record in file_records():
        yield f"reference/schemas/{record.file_format}.json", json.dumps(file_schema(record), indent=1) + "\n"


def command_line_page() -> str:
    """All commands with their arguments and options, as typer documents them."""
    command = [sys.executable, "-m", "typer", "dmask_mobile.cli.app", "utils", "docs", "--name", "dmask"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    note = "This page is written from the code. `dmask COMMAND --help` prints the same."
    _, _, body = done.stdout.partition("\n")
    return f"# Commands and options\n{note}\n{body}"


def python_page() -> str:
    """A directive of mkdocstrings for each public name, which it writes as users do: ``dm.search``."""
    lines = [
        "# Python API",
        "This page is written from docstrings, for `import dmask_mobile as dm`; see [From Python](../python.md) first.",
        "",
    ]
    for name in importlib.import_module(API).__all__:
        members = "" if name not in WITHOUT_MEMBERS else ", members: false"
        lines += [f"::: {API}.{name}", f"    options: {{heading: dm.{name}, toc_label: dm.{name}{members}}}", ""]
    return "\n".join(lines)


def file_records() -> list[type[FileRecord]]:
    """All records with a file of their own."""
    found: list[type[FileRecord]] = []
    for name in MODULES:
        members = vars(importlib.import_module(name)).values()
        found += [m for m in members if inspect.isclass(m) and issubclass(m, FileRecord) and m.__module__ == name]
    return found


def file_schema(record: type[FileRecord]) -> dict[str, Any]:
    """The JSON schema of a file as the newest version is written: the record's, with the two keys of the head."""
    schema = record.model_json_schema()
    head = {"format": {"const": record.file_format}, "version": {"const": record.file_version}}
    schema["properties"] = head | schema.get("properties", {})
    schema["required"] = [*head, *schema.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def files_page() -> str:
    """A table of fields for each file, then one for each part that files share."""
    lines = [
        "# Files and schemas",
        "This page is written from the code: the fields of each file and their JSON schemas. "
        "[File formats](../formats.md) has an example of a search space, the rows of a table and the run folder.",
        "",
    ]
    parts: dict[str, dict[str, Any]] = {}
    for record in file_records():
        schema = file_schema(record)
        parts |= schema.get("$defs", {})
        oldest = record.oldest_version or record.file_version
        also = f" (version {oldest} is read as well)" if oldest != record.file_version else ""
        lines += [
            f"## {record.__name__}",
            f"Format `{record.file_format}`, version {record.file_version}{also}. "
            f"[JSON schema](schemas/{record.file_format}.json)",
            "",
            inspect.getdoc(record) or "",
            "",
            *field_rows(schema),
        ]
    lines.append("## Parts of files")
    for name, schema in sorted(parts.items()):
        if "properties" in schema:
            lines += [f"### {name}", schema.get("description", ""), "", *field_rows(schema)]
    return "\n".join(lines)


def field_rows(schema: dict[str, Any]) -> list[str]:
    """A Markdown table: name, type and default of each field."""
    rows = ["| field | type | default |", "| --- | --- | --- |"]
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", []) else f"`{json.dumps(field.get('default'))}`"
        rows.append(f"| `{name}` | {type_of(field)} | {default.replace('|', chr(92) + '|')} |")
    return [*rows, ""]


def type_of(field: dict[str, Any]) -> str:
    """A field's type in words, with links to the parts that have a table of their own."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in field:
            return " or ".join(map(type_of, field[key]))
    if field.get("type") == "array":
        if "prefixItems" in field:
            return f"array of ({', '.join(map(type_of, field['prefixItems']))})"
        return f"array of {type_of(field.get('items', {}))}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"object of {type_of(values)}" if isinstance(values, dict) else "object"
    return str(field.get("type", "any value"))
