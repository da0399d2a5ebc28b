"""Escapes untrusted text for Markdown."""

from __future__ import annotations

import html
import re

from dmask_mobile.errors import MAX_MESSAGE, shown

SIGNS = re.compile(r"([\\`*|\[\]~$]|(?<![^\W_])_|_(?![^\W_]))")  # an underscore inside a word is not markup
AS_CODES = {
    r"#(?=\d|$)": "&#35;",  # GitHub makes links from #1,
    r"(?<!\w)@(?=\w)": "&#64;",  # from @names
    r":(?=//|[\w+-]+:)": "&#58;",  # and from addresses, and pictures from :names:
    r"(?<!\w)(www|WWW)\.": r"\1&#46;",
}


def as_markdown(text: object) -> str:
    r"""``text`` in one line that Markdown shows unchanged, also in a table cell: no markup, no HTML, no link.

    It must not be used at the beginning of a line, where ``#`` and ``1.`` are markup.

    >>> as_markdown("a|b <c> _d_ e_f")
    'a\\|b &lt;c&gt; \\_d\\_ e_f'
    """
    escaped = html.escape(SIGNS.sub(r"\\\1", shown(" ".join(str(text).split()), MAX_MESSAGE)), quote=False)
    for sign, code in AS_CODES.items():
        escaped = re.sub(sign, code, escaped)
    return escaped
