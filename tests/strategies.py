"""Random spaces and choices for hypothesis."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace

ACTIVATIONS = st.sampled_from(["relu", "hswish"])


def _subset(values: list[float], least: int = 1) -> st.SearchStrategy[tuple[float, ...]]:
    return st.sets(st.sampled_from(values), min_size=least, max_size=3).map(lambda found: tuple(sorted(found)))


@st.composite
def stages(draw: st.DrawFn) -> dict[str, object]:
    tied = draw(st.booleans())
    return {
        "blocks": draw(st.integers(1, 3)),
        "widths": draw(_subset([8, 12, 16, 24])),
        "stride": draw(st.sampled_from([1, 2])),
        "expansions": draw(_subset([0.75, 1, 2.5, 3])),
        "kernels": draw(_subset([3, 5])),
        "squeeze_excite": draw(_subset([False, True])),
        "se_gate": draw(st.sampled_from(["sigmoid", "hsigmoid"])),
        "activation": draw(ACTIVATIONS),
        "tied": tied,
        "skip": tied and draw(st.booleans()),
    }


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Small spaces with every dimension: stem, tied and free widths, skips, squeeze-excite, resolutions."""
    return SearchSpace.model_validate(
        {
            "name": "random",
            "classes": draw(st.integers(2, 7)),
            "input": {"channels": draw(st.sampled_from([1, 3])), "resolutions": draw(_subset([12, 16, 19]))},
            "stem": {
                "widths": draw(_subset([8, 12, 16])),
                "stride": draw(st.sampled_from([1, 2])),
                "activation": draw(ACTIVATIONS),
            },
            "stages": draw(st.lists(stages(), min_size=1, max_size=3)),
            "last": {"widths": draw(_subset([16, 24, 32])), "activation": draw(ACTIVATIONS)},
        }
    )


@st.composite
def spaces_with_choice(draw: st.DrawFn) -> tuple[SearchSpace, Choice]:
    space = draw(spaces())
    return space, space.sample(random.Random(draw(st.integers(0, 2**32))))
