"""Untrusted text stays plain text in Markdown."""

from __future__ import annotations

import pytest

from dmask_mobile.errors import shown
from dmask_mobile.markdown import as_markdown
from tests.dmask_mobile.hostile import NAMES, tokens_of

PLAIN = {"inline", "text", "text_special", "paragraph_open", "paragraph_close"}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_rendered_as_it_is(name: str) -> None:
    tokens = tokens_of(f"the class {as_markdown(name)}")
    assert {kind for kind, _ in tokens} <= PLAIN
    assert "".join(text for _, text in tokens) == f"the class {shown(name)}"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_cell_of_a_table(name: str) -> None:
    kinds = [kind for kind, _ in tokens_of(f"| a | b |\n| --- | --- |\n| {as_markdown(name)} | 1 |\n")]
    assert (kinds.count("tr_open"), kinds.count("td_open")) == (2, 2)
    assert not {"html_inline", "link_open", "image", "code_inline", "em_open", "strong_open"} & set(kinds)


def test_no_address_mention_or_issue_becomes_a_link() -> None:
    assert as_markdown("http://a.b www.c.d @e #1 :f: weight_bytes g@h") == (
        "http&#58;//a.b www&#46;c.d &#64;e &#35;1 &#58;f: weight_bytes g@h"
    )
