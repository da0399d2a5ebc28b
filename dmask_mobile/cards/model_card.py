"""A model card in Hugging Face's format: YAML metadata, then Markdown.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from dmask_mobile.cards.class_table import confused_pairs, hardest_classes
from dmask_mobile.cards.facts import CardFacts
from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.errors import shown
from dmask_mobile.markdown import as_markdown
from dmask_mobile.quantities import quantity
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.names import MAX_LINE

UNKNOWN_LICENSE = "unknown"  # one of the Hub's identifiers
SPLIT_NAMES = {"test": "test", "val": "validation"}
LISTED = 5  # classes and mistakes


class Verbatim(str):
    """Text that goes into the card as it is; all other text is escaped."""


def card_text(facts: CardFacts, license_name: str) -> str:
    """The card of a run.

    Args:
        facts: see `facts_of`.
        license_name: the Hub's identifier of the model's licence; empty if the user has not set it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dmask_mobile.cards"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # autoescape is for HTML; here `finalize` escapes every expression
        finalize=lambda value: value if isinstance(value, Verbatim) else as_markdown(value),
    )
    return environment.get_template("model_card.md.jinja").render(
        facts=facts,
        record=facts.record,
        child=facts.child,
        license_name=license_name,
        metadata=Verbatim(_yaml(metadata_of(facts, license_name))),
        macs=Macs().estimate(facts.child).value,
        params=Params().estimate(facts.child).value,
        quantity=quantity,
        split_names=SPLIT_NAMES,
        hardest=hardest_classes(facts.accuracy, LISTED) if facts.accuracy else (),
        mistakes=confused_pairs(facts.accuracy, LISTED) if facts.accuracy else (),
        commands=[Verbatim(line) for line in _commands(facts)],
    )


def metadata_of(facts: CardFacts, license_name: str) -> dict[str, Any]:
    """The YAML block: licence, tags, data, metrics, and the accuracy with its split."""
    formats = dict.fromkeys(artifact.model_format for artifact in facts.artifacts)
    is_identifier = re.fullmatch(r"[a-z0-9.-]*", license_name)
    found: dict[str, Any] = {
        **({"license": license_name or UNKNOWN_LICENSE} if is_identifier else {"license": "other"}),
        **({} if is_identifier else {"license_name": license_name}),
        "library_name": "dmask-mobile",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "dmask-mobile", "neural-architecture-search", *formats],
    }
    if facts.data_name:
        found["datasets"] = [_as_identifier(facts.data_name)]
    if facts.accuracy:
        found |= {"metrics": ["accuracy"], "model-index": [_model_index(facts, facts.accuracy)]}
    return found


def _model_index(facts: CardFacts, accuracy: AccuracyRecord) -> dict[str, Any]:
    split = SPLIT_NAMES[accuracy.split]
    return {
        "name": shown(facts.child.name),
        "results": [
            {
                "task": {"type": "image-classification", "name": "Image Classification"},
                "dataset": {
                    "type": _as_identifier(facts.data_name),
                    "name": shown(facts.data_name),
                    "split": split,
                },
                "metrics": [{"type": "accuracy", "value": accuracy.accuracy, "name": f"Accuracy ({split})"}],
            }
        ],
    }


def _as_identifier(name: str) -> str:
    """``name`` in the form that the Hub allows."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:96] or "data"


def _yaml(content: dict[str, Any]) -> str:
    # Lines are not folded: a part of a long name must not be at the beginning of a line.
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10 * MAX_LINE)


def _commands(facts: CardFacts) -> Iterator[str]:
    """The commands that reproduce the run; each begins with ``dmask``, so that no name can end the code block."""
    record, data = facts.record, f"--data {_word(facts.data_name or 'DATA')}"
    if facts.result and record.space:
        budgets = " ".join(
            _word(f"--budget={budget.cost}={budget.limit:.15g}{'ms' if budget.unit == 'ms' else ''}")
            for budget in record.budgets
        )
        yield f"dmask search {_word(record.space.name)} {data} {budgets} -o RUN"
    if record.train_settings is not None:
        yield f"dmask train RUN {data}"
        yield "dmask test RUN"
    for artifact in facts.artifacts:
        yield f"dmask export RUN --format {artifact.model_format} --precision {artifact.precision}"
    if facts.artifacts:
        yield "dmask verify RUN"


def _word(text: str) -> str:
    return shlex.quote(shown(text))
