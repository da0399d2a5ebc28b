"""How often a test split was opened."""

from __future__ import annotations

import pytest

from dmask_mobile.records.openings import OpenedBy, Opening, SplitOpenings

TEST: OpenedBy = "dmask test"
VERIFY: OpenedBy = "dmask verify"


@pytest.mark.parametrize(
    ("openings", "count"),
    [
        ([], 0),
        ([("a", TEST)], 1),
        ([("a", TEST), ("a", TEST)], 2),  # the first was interrupted
        ([("a", TEST), ("a", VERIFY)], 1),
        ([("a", VERIFY), ("a", VERIFY), ("a", TEST)], 1),
        ([("a", VERIFY), ("b", VERIFY), ("c", TEST)], 3),
    ],
)
def test_each_test_counts_and_each_weights_that_were_only_verified(
    openings: list[tuple[str, OpenedBy]], count: int
) -> None:
    found = SplitOpenings()
    for weights, by in openings:
        found = found.with_opening(Opening(weights_sha256=weights, by=by, created="2026-11-25"))
    assert found.count == count
