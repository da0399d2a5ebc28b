"""Caches are named by the code that fills them."""

from __future__ import annotations

import pytest

from latency_tables.conversion.converter import MAKES_MODELS
from latency_tables.sources import source_digest


def test_the_digest_names_files_that_exist() -> None:
    assert source_digest(*MAKES_MODELS) != source_digest(*MAKES_MODELS[1:])


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"no source file matches 'export/moved_\*\.py'"):
        source_digest("export/*.py", "export/moved_*.py")
