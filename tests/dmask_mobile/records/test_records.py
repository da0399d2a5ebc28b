from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from pydantic import ValidationError

from dmask_mobile.errors import DmaskError
from dmask_mobile.records.block import BlockSpec, round8
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.choice import Choice
from dmask_mobile.records.space import SearchSpace, load_space, shipped_spaces
from dmask_mobile.records.verification import Check, Verification, judge
from tests.strategies import spaces_with_choice

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize(("width", "rounded"), [(0.1, 8), (11.9, 8), (12, 16), (19.99, 16), (20, 24), (72, 72)])
def test_round8_is_the_nearest_multiple_of_eight(width: float, rounded: int) -> None:
    assert round8(width) == rounded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "conv", "in_width": 3, "out_width": 8, "kernel": 4}, "kernel must be odd, got 4"),
        ({"kind": "skip", "in_width": 8, "out_width": 16}, "skip needs in_width = out_width"),
        ({"kind": "inverted_residual", "in_width": 8, "out_width": 8}, "hidden_width must be positive"),
        ({"kind": "head", "in_width": 8, "out_width": 8, "stride": 2}, "kernel and stride must be 1 for head"),
        ({"kind": "conv", "in_width": 8, "out_width": 16, "residual": True}, "residual needs a convolution or an inv"),
        (
            {"kind": "conv", "in_width": 8, "out_width": 8, "start_kernel": 3},
            "start_kernel must be 0 and depthwise true",
        ),
        (
            {
                "kind": "inverted_residual",
                "in_width": 8,
                "hidden_width": 8,
                "out_width": 8,
                "depthwise": False,
                "stride": 2,
            },
            "kernel and stride must be 1 in a block without a convolution",
        ),
        ({"kind": "conv", "in_width": 8, "out_width": 8, "se_width": 8}, "se_width must be 0 for conv"),
        ({"kind": "conv", "in_width": 8, "out_width": 10**9}, "out_width\n.*less than or equal to 65536"),
        ({"kind": "conv", "in_width": 8, "out_width": 8, "kernel": 2001}, "kernel\n.*less than or equal to 31"),
        ({"kind": "head", "in_width": 65_536, "out_width": 65_536}, "at most 268,435,456 weights, this one has 4,294"),
    ],
)
def test_block_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BlockSpec.model_validate(fields)


def test_the_largest_of_published_layers_are_well_within_the_bounds() -> None:
    BlockSpec(kind="head", in_width=4096, out_width=21_841)  # ImageNet-21k
    BlockSpec(kind="conv", in_width=1536, out_width=1536, kernel=7)
    BlockSpec(kind="inverted_residual", in_width=1536, hidden_width=1536, out_width=1536, expand=False, kernel=31)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "n" * 201}, "name\n.*at most 200 characters"),
        ({"classes": 10**9}, "classes\n.*less than or equal to 65536"),
        ({"input": {"resolutions": [10**9]}}, "less than or equal to 8192"),
        ({"stem": {"widths": list(range(1, 200))}}, "at most 100 items"),
        ({"stages": [{"blocks": 10**6, "widths": [8], "expansions": [1]}]}, "blocks\n.*less than or equal to 1000"),
        (
            {"stages": [{"blocks": 999, "widths": [8], "expansions": [1]}] * 9},
            "at most 1,000 blocks, this space has 8,994",
        ),
        ({"stages": [{"blocks": 2, "widths": [60_000], "expansions": [99]}]}, "stage1.block2: its widest block has a"),
        (
            {"stages": [{"blocks": 30, "tied": False, "widths": [*range(1, 100)], "expansions": [*range(1, 100)]}]},
            "at most 20,000,000 combinations of options, this space has 28",
        ),
    ],
)
def test_spaces_beyond_what_can_be_searched_are_refused(changes: dict[str, object], message: str) -> None:
    space = {
        "name": "s",
        "input": {"resolutions": [32]},
        "stem": {"widths": [8]},
        "stages": [{"blocks": 1, "widths": [8], "expansions": [1]}],
        "last": {"widths": [8]},
    }
    SearchSpace.model_validate(space)
    with pytest.raises(ValidationError, match=message):
        SearchSpace.model_validate(space | changes)


def test_a_network_of_many_blocks_is_refused_in_one_line(tmp_path: Path) -> None:
    block = {"kind": "skip", "in_width": 8, "out_width": 8}
    child = {"format": "dmask-child", "version": 1, "name": "c", "resolution": 8, "classes": 8}
    (tmp_path / "child.json").write_text(json.dumps(child | {"blocks": [block] * 100_000}))
    with pytest.raises(DmaskError, match=r"blocks: .*at most 1000 items") as raised:
        ChildSpec.read(tmp_path / "child.json")
    assert len(raised.value.problem) < len(str(tmp_path)) + 400


def test_records_are_frozen() -> None:
    block = BlockSpec(kind="skip", in_width=8, out_width=8)
    with pytest.raises(ValidationError, match="frozen"):
        block.in_width = 9  # type: ignore[misc]


@given(spaces_with_choice())
def test_child_survives_its_file(case: tuple[SearchSpace, Choice]) -> None:
    space, choice = case
    child = space.child(choice)
    again = ChildSpec.from_dict(json.loads(json.dumps(child.to_dict())), "memory")
    assert again == child
    assert again.digest() == child.digest()


@given(spaces_with_choice())
def test_space_survives_its_file(case: tuple[SearchSpace, Choice]) -> None:
    space, _ = case
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())), "memory") == space


@pytest.mark.parametrize("name", shipped_spaces())
def test_number_of_children_of_a_small_part_is_that_of_its_enumeration(name: str) -> None:
    full = load_space(name).model_dump()
    full["stages"] = full["stages"][:1]
    full["input"]["resolutions"] = full["input"]["resolutions"][:1]
    space = SearchSpace.model_validate(full)
    generator = random.Random(0)
    found = {space.child(space.sample(generator)).digest() for _ in range(40 * space.num_children())}
    assert len(found) == space.num_children()


def test_fbnetv2_f_has_at_least_10_to_the_30_children() -> None:
    assert load_space("fbnetv2_f").num_children() >= 10**30


def test_golden_files_of_version_1_still_read() -> None:
    child = ChildSpec.read(GOLDEN / "child_v1.json")
    assert [block.kind for block in child.blocks] == ["conv", "inverted_residual", "skip", "conv", "head"]
    assert SearchSpace.read(GOLDEN / "space_v1.yaml").num_children() == 2 * 2 * (2 * 2) * (2 * 2 + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"unknown key 'colour'"),
        ({"version": 3}, r"version 3 of dmask-space, but this dmask-mobile reads version 1 and 2"),
        ({"format": "other"}, r"format must be 'dmask-space', found 'other'"),
        ({"last": {"widths": []}}, r"last\.widths: an option list must name at least one option"),
        ({"last": {"widths": [16, 8]}}, r"last\.widths: options must be strictly increasing"),
        ({"stages": []}, r"stages"),
        (
            {"stages": [{"widths": [8], "blocks": [{"shortcut": True}]}]},
            r"': stage1: the first block of a stage with wid",
        ),
        ({"stages": [{"blocks": [{}]}]}, r"': stage1: blocks that do not change the width need a shortcut"),
        ({"stages": [{"blocks": [{"skip": True}]}]}, r"': stage1\.blocks\.0: skip needs a shortcut"),
        (
            {"stages": [{"blocks": [{"shortcut": True, "stride": 2}]}]},
            r"': stage1\.blocks\.0: a shortcut needs stride 1",
        ),
        ({"stages": [{"widths": [8], "blocks": [{"kind": "fused_inverted_residual"}]}]}, r"needs hidden_widths"),
        ({"input": {"resolutions": [32], "mean": [0.5] * 3}}, r"input: mean and std must be given together"),
        ({"weights": {"file": "../w.safetensors", "sha256": "0" * 64}}, r"weights\.file: String should match pattern"),
        ({"stages": [{"blocks": 1, "widths": [16, 8]}]}, r"': stage1\.widths: options must be strictly increasing"),
    ],
)
def test_space_refuses(change: dict[str, object], message: str, tmp_path: Path) -> None:
    content = load_space("demo").to_dict() | change
    path = tmp_path / "space.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DmaskError, match=message) as error:
        SearchSpace.read(path)
    assert "space.json" in str(error.value)


def test_unknown_space_names_the_known_ones() -> None:
    with pytest.raises(DmaskError, match=r"no space 'nowhere'; give the path .* demo"):
        load_space("nowhere")


def test_writing_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "child.json"
    first = load_space("demo").child(load_space("demo").smallest())
    second = load_space("demo").child(load_space("demo").largest())
    first.write(path)
    second.write(path)
    assert ChildSpec.read(path) == second
    assert [p.name for p in tmp_path.iterdir()] == ["child.json"]


def check(verdict: str) -> Check:
    return Check.model_validate(
        {"artifact": "onnx", "quantity": "size", "unit": "bytes", "predicted": 1, "measured": 1, "allowed": "0",
         "verdict": verdict}
    )  # fmt: skip


def test_verification_passes_only_when_all_was_seen_and_passed() -> None:
    def passed(*verdicts: str) -> bool:
        return Verification(child_digest="d", created="t", checks=tuple(map(check, verdicts))).passed

    assert passed("passed", "passed")
    assert not passed("passed", "failed")
    assert not passed("passed", "not verified")
    assert not passed()


def test_judge() -> None:
    assert judge(10, 10.5, 0.5) == "passed"
    assert judge(10, 10.6, 0.5) == "failed"
    assert judge(10, None, 0.5) == "not verified"
    assert judge(10, float("nan"), 0.5) == "failed"
