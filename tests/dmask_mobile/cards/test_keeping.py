"""Whether the file of the card was written by us or edited by a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmask_mobile.cards.keeping import is_ours, keep_card, license_in
from dmask_mobile.errors import DmaskError

CARD = "---\nlicense: mit\n---\n# Model\n"


def test_a_card_is_written_again_while_nobody_edits_it(tmp_path: Path) -> None:
    assert keep_card(tmp_path, CARD) == keep_card(tmp_path, CARD + "more\n") == tmp_path / "README.md"
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(CARD + "more\n<!--")
    (tmp_path / "README.md").write_bytes(text.replace("\n", "\r\n").encode())  # as git does on Windows
    assert keep_card(tmp_path, CARD) == tmp_path / "README.md"


@pytest.mark.parametrize("edit", ["appended", "inside", "foreign", "binary", "folder", "dangling"])
def test_what_a_person_wrote_is_kept(edit: str, tmp_path: Path) -> None:
    card = keep_card(tmp_path, CARD)
    written = card.read_text()
    card.unlink()
    match edit:
        case "folder":
            card.mkdir()
        case "dangling":
            card.symlink_to(tmp_path / "elsewhere")
        case _:
            edited = {"appended": f"{written}mine\n", "inside": written.replace("Model", "My model"), "foreign": "mine"}
            card.write_bytes(edited.get(edit, "\udcff").encode(errors="surrogateescape"))
    assert keep_card(tmp_path, CARD) == tmp_path / "README.generated.md"
    assert is_ours(tmp_path / "README.generated.md")
    assert not is_ours(card)
    card.rmdir() if edit == "folder" else card.unlink()
    assert keep_card(tmp_path, CARD) == card
    assert not (tmp_path / "README.generated.md").exists()


@pytest.mark.parametrize("edit", ["foreign", "folder", "dangling", "inside"])
def test_two_edited_cards_are_both_kept(edit: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    generated = keep_card(tmp_path, CARD)
    assert generated.name == "README.generated.md"
    content = generated.read_text().replace("Model", "My model") if edit == "inside" else "mine"
    generated.unlink()
    match edit:
        case "folder":
            generated.mkdir()
        case "dangling":
            generated.symlink_to(tmp_path / "elsewhere")
        case _:
            generated.write_text(content)
    with pytest.raises(DmaskError, match=r"README\.generated\.md' were edited by hand and are kept; rename one"):
        keep_card(tmp_path, CARD)
    assert (tmp_path / "README.md").read_text() == "mine"
    if edit in ("foreign", "inside"):
        assert generated.read_text() == content
    assert generated.is_dir() == (edit == "folder")


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ("license: mit", "mit"),
        ("license: other\nlicense_name: Mine", "Mine"),
        ("license: [a", ""),
        ("license: [a]", ""),
        ("- a", ""),
        ('license: "a\\nb"', ""),
    ],
)
def test_the_licence_comes_from_the_card_whoever_wrote_it(metadata: str, found: str, tmp_path: Path) -> None:
    assert license_in(tmp_path) == ""
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n# Mine\n")
    assert license_in(tmp_path) == found
