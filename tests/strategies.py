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
def listed_blocks(draw: st.DrawFn, shortcut: bool) -> dict[str, object]:
    kind = draw(st.sampled_from(["inverted_residual", "inverted_residual", "fused_inverted_residual", "conv"]))
    is_free = kind == "inverted_residual"
    hidden = [] if kind == "conv" or (is_free and draw(st.booleans())) else draw(_subset([4, 8, 20, 24]))
    kernels = [] if is_free and hidden and draw(st.integers(0, 3)) == 0 else draw(_subset([3, 5]))
    start = draw(_subset([3, 5])) if is_free and draw(st.booleans()) else []
    return {
        "kind": kind,
        "hidden_widths": hidden,
        "kernels": kernels,
        "start_kernels": start,
        "stride": 1 if shortcut or not (kernels or start) else draw(st.sampled_from([1, 2])),
        "squeeze_widths": [0] if kind == "conv" else draw(_subset([0, 2, 6])),
        "se_gate": draw(st.sampled_from(["sigmoid", "hsigmoid"])),
        "se_activation": draw(st.sampled_from([None, "relu", "silu"])),
        "activation": draw(st.sampled_from(["relu", "hswish", "relu6", "silu"])),
        "shortcut": shortcut,
        "skip": shortcut and draw(st.booleans()),
    }


@st.composite
def listed_stages(draw: st.DrawFn) -> dict[str, object]:
    opens = draw(st.booleans())
    first = [draw(listed_blocks(shortcut=False))] if opens else [draw(listed_blocks(shortcut=True))]
    others = draw(st.lists(listed_blocks(shortcut=True), max_size=2))
    return {"widths": draw(_subset([8, 12, 16])) if opens else [], "blocks": first + others}


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Small spaces of both versions with every dimension that they have; half of them are of version 1."""
    return draw(spaces_of_version_1() if draw(st.booleans()) else spaces_of_version_2())


@st.composite
def spaces_of_version_2(draw: st.DrawFn) -> SearchSpace:
    """Stages that list their blocks beside others, a head with a hidden layer, no last convolution, either padding."""
    first = draw(spaces_of_version_1()).to_dict()
    fields = {name: value for name, value in first.items() if name not in ("format", "version")}
    listed = draw(st.lists(listed_stages(), min_size=1, max_size=2))
    counted = draw(st.lists(stages(), max_size=1))
    return SearchSpace.model_validate(
        {
            **fields,
            "stages": [*listed, *counted] if draw(st.booleans()) else [*counted, *listed],
            "last": fields["last"] if draw(st.booleans()) else None,
            "head": draw(st.sampled_from([None, {"hidden_widths": [8, 12], "activation": "silu"}])),
            "norm_eps": draw(st.sampled_from([1e-5, 1e-3])),
            "padding": draw(st.sampled_from(["symmetric", "same"])),
        }
    )


@st.composite
def spaces_of_version_1(draw: st.DrawFn) -> SearchSpace:
    """Stem, tied and free widths, skips, squeeze-excite, resolutions."""
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
