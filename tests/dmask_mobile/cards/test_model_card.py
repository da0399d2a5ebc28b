"""The model card: its content, and that names in it stay plain text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from dmask_mobile.cards.facts import CardFacts, name_of_data, without_folders
from dmask_mobile.cards.model_card import card_text
from dmask_mobile.errors import shown
from dmask_mobile.records.accuracy import AccuracyRecord
from dmask_mobile.records.artifact import Preprocessing
from dmask_mobile.records.verification import Verification, line_of
from dmask_mobile.run import BudgetRecord, RunRecord
from tests.dmask_mobile.hostile import NAMES, tokens_of
from tests.dmask_mobile.small import SPACE

COUNT = len(NAMES)
CHILD = SPACE.with_classes(COUNT).child(SPACE.smallest(), "small")
VALIDATION = "a **validation figure**"
DATA = "folder:/home/ann/secret/my <b>data\n---\nx: [y"
RECORD = RunRecord(
    created="2026-11-25",
    versions={"python": "3.11"},
    preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
    class_names=NAMES,
    data=DATA,
    data_digest="0123456789abcdef",
    data_notes=("no val split: 4 of 20 | images",),
    space=SPACE.with_classes(COUNT),
    budgets=(BudgetRecord(cost="macs", limit=93_600, unit="macs"),),
    train_settings={"epochs": 3, "recipe": {"mixup": 0.2, "teacher": "/home/ann/secret/teacher.pt"}, "note": "a | b"},
    weights_sha256="w",
)


def accuracy_of(split: str, right: int = 9) -> AccuracyRecord:
    confusion = [[right if true == predicted else 1 for predicted in range(COUNT)] for true in range(COUNT)]
    fields = {"data_digest": "0123456789abcdef", "weights_sha256": "w", "class_names": NAMES}
    opened = {"times_opened": 1} if split == "test" else {"num_training_images": 777}
    return AccuracyRecord.from_confusion(confusion, split=split, **fields, **opened)


FACTS = CardFacts(RECORD, CHILD, None, accuracy_of("val"), accuracy_of("test"), (), None)


def test_hugging_face_reads_the_metadata() -> None:
    card = ModelCard(card_text(FACTS, "apache-2.0"), ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0"
    assert "image-classification" in card.data.tags
    assert card.data.datasets == ["my-b-data-x-y"]
    (result,) = card.data.eval_results
    assert (result.dataset_split, result.metric_type, result.metric_value) == ("test", "accuracy", 0.5)
    assert card.data.model_name == "small"


def test_the_metadata_is_one_block_that_no_name_ends() -> None:
    _, block, rest = card_text(FACTS, "--- mine: [a").split("---\n", 2)
    content = yaml.safe_load(block)
    assert (content["license"], content["license_name"]) == ("other", "--- mine: [a")
    assert content["model-index"][0]["results"][0]["dataset"]["name"] == r"my <b>data\n---\nx: [y"
    assert rest.startswith("# Model small\n")


def test_names_stay_text() -> None:
    text = card_text(FACTS, "<mine>")
    tokens = tokens_of(text.partition("# Model")[2])
    kinds = [kind for kind, _ in tokens]
    assert not {"html_inline", "html_block", "link_open", "s_open", "em_open"} & set(kinds)
    assert kinds.count("image") == 1  # the confusion matrix
    cells = [content for kind, content in tokens if kind in ("text", "text_special")]
    shown_text = "".join(cells)
    for row in NAMES[:5]:
        assert shown(row) in shown_text
    assert text.count("\n## ") == 9


def test_no_folder_of_the_user_is_told() -> None:
    text = card_text(FACTS, "")
    assert "secret" not in text
    assert "| recipe.teacher | teacher.pt |" in text
    assert "| recipe.mixup | 0.2 |" in text


@pytest.mark.parametrize(
    ("facts", "said", "not_said"),
    [
        (FACTS, ("**50.00%** top-1 on 180 test images", "opened 1 time for this run", "| 777 |"), VALIDATION),
        (replace(FACTS, test=None), ("180 validation images", VALIDATION, "was not opened"), "test images |"),
        (replace(FACTS, test=accuracy_of("val")), (VALIDATION, "The data has no test split."), "for this run"),
        (replace(FACTS, test=None, val=None), ("No accuracy is known of these weights.",), "model-index"),
    ],
)  # fmt: skip
def test_an_accuracy_comes_with_its_split(facts: CardFacts, said: tuple[str, ...], not_said: str) -> None:
    text = card_text(facts, "")
    assert all(sentence in text for sentence in said)
    assert not_said not in text
    assert "license: unknown\n" in text
    assert "**To be filled in:**" in text


def test_a_verification_shows_its_main_lines() -> None:
    checks = (
        line_of("onnx", "latency@pixel", "ms", 1.5, 1.6, "10%", "passed"),
        line_of("onnx", "cosine", "", 1.0, 1.0, "at least 0.9", "passed"),
        line_of("run", "peak_activation_bytes budget", "bytes", 2048, 1024, "0", "passed"),
    )
    found = Verification(child_digest="c", created="2026-11-25", checks=checks, weights_sha256="w", split="test")
    text = card_text(replace(FACTS, verification=found), "")
    assert "| onnx | latency@pixel | 1.50 ms | 1.60 ms | 10% | passed |" in text
    assert "| run | peak_activation_bytes budget | 2.0 KiB | 1.0 KiB | 0 | passed |" in text
    assert "| onnx | cosine" not in text
    assert "Verified: 3 checks of 2026-11-25" in text
    assert "Accuracies are those on test images." in text


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("folder:/a/flowers", "flowers"),
        ("torchvision:CIFAR10:/a/b", "CIFAR10"),
        ("hf:/a/beans", "beans"),
        ("wds:/a/train-{000..146}.tar", "train-{000..146}.tar"),
        ("fashion-mnist:/a", "fashion-mnist"),
        ("my_data:Pets", "my_data:Pets"),
    ],
)
def test_data_has_a_name_without_its_folder(spec: str, name: str) -> None:
    assert name_of_data(spec) == name
    assert without_folders("C:\\\\Users\\\\ann\\\\x.pt") == "x.pt"


@pytest.mark.parametrize("name", ["memory@pixel", "energy", "latency budget"])
def test_what_a_device_measured_is_in_the_card(name: str) -> None:
    check = line_of("onnx", name, "bytes", 2048, 3072, "15%", "passed")
    verification = Verification(child_digest=CHILD.digest(), created="", checks=(check,), weights_sha256="w")
    assert replace(FACTS, verification=verification).verified_lines() == (check,)
