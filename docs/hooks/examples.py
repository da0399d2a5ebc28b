"""Shows the examples in docstrings as code: mkdocstrings knows them only below a heading ``Examples:``."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class FencedExamples(Extension):
    """Puts each paragraph that begins with ``>>>`` into a fenced block."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for each object that griffe has read."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
