"""Text from elsewhere in Markdown."""

from __future__ import annotations

import html
import re

from dmask_mobile.errors import MAX_MESSAGE, shown

SIGNS = re.compile(r"([\\`*|\[\]~$]|(?<![^\W_])_|_(?![^\W_]))")  # an underscore inside a word is no markup
AS_CODES = {
    r"#(?=\d|$)": "&#35;",  # GitHub makes links of #1,
    r"(?<!\w)@(?=\w)": "&#64;",  # of @names
    r":(?=//|[\w+-]+:)": "&#58;",  # and of addresses, and pictures of :names:
    r"(?<!\w)(www|WWW)\.": r"\1&#46;",
}


def as_markdown(text: object) -> str:
    r"""``text`` in one line that Markdown shows as it is, also in a table's cell: no markup, no HTML, no link.

    Not for the beginning of a line, where ``#`` and ``1.`` have a meaning.

    >>> as_markdown("a|b <c> _d_ e_f")
    'a\\|b &lt;c&gt; \\_d\\_ e_f'
    """
    escaped = html.escape(SIGNS.sub(r"\\\1", shown(" ".join(str(text).split()), MAX_MESSAGE)), quote=False)
    for sign, code in AS_CODES.items():
        escaped = re.sub(sign, code, escaped)
    return escaped
