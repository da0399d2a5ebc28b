"""JSON Schemas of the output of every command with ``--json``, made from the records that the command prints.

``python -m dmask_mobile.cli.json_schemas docs/schemas`` writes one file for each command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from dmask_mobile.cli import json_results as own
from dmask_mobile.cost_names import our_package
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import Artifact
from dmask_mobile.records.base import FileRecord
from dmask_mobile.records.estimate import Estimate
from dmask_mobile.records.space import SearchSpace
from dmask_mobile.records.sweep import SweepRecord
from dmask_mobile.records.verification import Verification
from dmask_mobile.report.status import RunStatus
from dmask_mobile.run import SearchResultRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DRY_RUN = (Estimate, own.Seconds)


class CountedSpace(BaseModel):
    """Printed by ``space count``: for each cost, the lowest and the highest value of any child."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, tuple[float, float]]

    num_children: int


def parts_of_results() -> dict[str, list[tuple[Any, ...]]]:
    """For each command, its possible results: tuples of records and mappings whose keys are printed together."""
    our_package("latency_tables")
    from latency_tables.diagnosis.discovery import Attached
    from latency_tables.profiling.judging import Evaluation
    from latency_tables.table.rows import TableHead

    return {
        "devices": [(Attached,)],
        "doctor": [(own.Findings,)],
        "demo": [(Verification, own.Outcome)],
        "profile": [(TableHead, own.ProfileFacts)],
        "search": [(SearchResultRecord,), DRY_RUN],
        "train": [(own.RunAccuracy,), DRY_RUN],
        "test": [(AccuracyRecord, own.AccuracyFacts)],
        "export": [(Artifact,)],
        "verify": [(Verification, own.Outcome)],
        "sweep": [(SweepRecord,)],
        "report": [(own.WrittenReport,)],
        "status": [(RunStatus,)],
        "plot": [(own.WrittenPicture,)],
        "card": [(own.WrittenCard,)],
        "table show": [(TableHead, own.TableFacts)],
        "table check": [(TableHead, own.TableFacts)],
        "table evaluate": [(Evaluation,)],
        "table plot": [(own.WrittenPicture,)],
        "table merge": [(TableHead, own.TableFacts)],
        "table diff": [(own.TableChanges,)],
        "table import": [(own.ImportedTable,)],
        "space from": [(SearchSpace, own.SpaceFacts, own.ImportFacts)],
        "space show": [(SearchSpace, own.SpaceFacts)],
        "space count": [(CountedSpace,)],
    }


LISTS = ("export",)  # commands that print a list of results
LEFT_OUT = {"table evaluate": ("children",)}  # keys of a record that are not printed


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each command's output, by the name of the command."""
    return {command: _schema(command, kinds) for command, kinds in parts_of_results().items()}


def _schema(command: str, kinds: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    found = [_merged(parts, LEFT_OUT.get(command, ()), definitions) for parts in kinds]
    result = found[0] if len(found) == 1 else {"anyOf": found}
    if command in LISTS:
        result = {"type": "array", "items": result}
    head = {"$schema": DIALECT, "title": f"dmask {command} --json"}
    return {**head, **result, **({"$defs": dict(sorted(definitions.items()))} if definitions else {})}


def _merged(parts: Sequence[Any], left_out: Sequence[str], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a mapping with the keys of all parts; referenced schemas are added to ``definitions``."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    described, others = [], False
    for part in parts:
        schema = TypeAdapter(part).json_schema(mode="serialization")
        definitions |= schema.get("$defs", {})
        if isinstance(part, type) and issubclass(part, FileRecord):
            properties |= {"format": {"const": part.file_format}, "version": _versions(part)}
            required += ["format", "version"]
        properties |= {name: found for name, found in schema["properties"].items() if name not in left_out}
        required += [name for name in schema.get("required", ()) if name not in left_out]
        described.append(" ".join(schema.get("description", "").split()))
        others = schema.get("additionalProperties", False) or others
    return {
        "type": "object",
        "description": " ".join(filter(None, described)),
        "properties": properties,
        "required": required,
        "additionalProperties": others,
    }


def _versions(record: type[FileRecord]) -> dict[str, Any]:
    """The versions that are written."""
    if record.written_version is FileRecord.written_version:
        return {"const": record.file_version}
    return {"enum": list(range(record.oldest_version or record.file_version, record.file_version + 1))}


def write_schemas(folder: Path) -> None:
    """Writes ``COMMAND.json`` for each command, and removes all other schemas."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for command, schema in json_schemas().items():
        text = json.dumps(schema, indent=1) + "\n"
        (folder / f"{command.replace(' ', '-')}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
