"""The model card: what it says, and that Markdown shows every name as it stands."""

from __future__ import annotations

import re

import pytest

from ossicle import __version__, bundle
from ossicle.card import plain_card
from ossicle.heads import Head
from ossicle.model import Model, create_model

LABEL = {
    "name": "yamnet",
    "title": "clips",
    "weights": "AudioSet, 521 classes",
    "licence": "Apache-2.0",
    "origin": "8-bit release, dequantised",
    "probe": {"name": "ridge", "penalty": 0.0001},
    "n_clips": 86,
    "labels": {"a": {"clips": 80, "groups": 9}, "b": {"clips": 1, "groups": 1}},
    "score": {"metric": "accuracy", "value": 0.81395, "low": 0.72152, "high": 0.89445},
    "protocol": "5-fold cross-validation, stratified, no group on both sides of a split",
    "created": "2026-03-04T07:13:17+00:00",
}


def model_with(info: dict, classes=("a", "b"), task: str = "classes") -> Model:
    base = create_model("mel")
    head = Head([128, max(1, len(classes))])
    parts = {"clip": base.clip, "readout": ("mel/mean", "mel/std"), "head": head}
    return Model(base.frontend, base.backbone, classes=classes, task=task, info=info, **parts)


def text_of(card: str) -> list[str]:
    """What a reader sees, a line a block, by another's reading of CommonMark."""
    markdown_it = pytest.importorskip("markdown_it")
    lines, number = [], None
    for token in markdown_it.MarkdownIt("commonmark").enable("table").parse(card):
        assert token.type not in ("html_block", "code_block", "hr", "blockquote_open")
        if token.type == "list_item_open":
            number = token.info
        if token.type == "inline":
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "code_inline", "softbreak", "text_special"}, kinds
            text = "".join(child.content or " " for child in token.children)
            lines.append(f"{number}. {text}" if number else text)
    return lines


def test_the_card_says_what_the_label_holds(tmp_path):
    bundle.save(model_with(LABEL), tmp_path / "drum_sounds")
    lines = text_of((tmp_path / "drum_sounds" / "README.md").read_text(encoding="utf-8"))
    assert lines[0] == "drum_sounds"
    assert "It tells 2 classes of sound apart." in lines
    assert (
        "Accuracy 0.814 (95 % interval 0.722 to 0.894), measured by 5-fold cross-validation, "
        "stratified, no group on both sides of a split. The model in this folder was then fitted "
        "on all 86 clips, so its scores on these very clips say nothing."
    ) in lines
    assert "weights: AudioSet, 521 classes; licence: Apache-2.0" in lines
    assert "origin of the weights: 8-bit release, dequantised" in lines
    assert "probe: ridge (penalty 0.0001) on 1 layer" in lines
    assert f"made by: ossicle {__version__} on 2026-03-04" in lines
    assert lines[-2:] == ["1. a: 80 clips", "2. b: 1 clip"]


def test_without_a_score_it_says_so():
    card = plain_card(model_with({"name": "mel", "n_clips": 12}))
    assert "No score was measured with it. It was fitted on all 12 clips." in card
    assert "interval" not in card
    assert plain_card(create_model("mel")).startswith("# mel\n")
    assert "it has no classes" in plain_card(create_model("mel"))


def test_other_tasks_and_their_scores():
    several = plain_card(model_with({"score": {"metric": "map", "value": 0.5}}, task="multilabel"))
    assert "which of 2 classes" in several
    assert "Mean average precision 0.500. The model" in several
    number = plain_card(model_with({"score": {"metric": "r2", "value": -0.25}}, (), "regression"))
    assert "R² -0.250." in number
    assert "## Classes" not in number


HARD = ["*", "**bold**", "_a_b_", "kick_drum", "# head", "- item", "+ item", "1. one", "2) two"]
HARD += ["<b>bold</b>", "&lt;", "a & b", "[link](https://a.b)", "![picture](x)", "`code`", "a\\*b"]
HARD += ["> quote", "---", "===", "~~~", "```", "| a | b |", "<!-- x -->", "<https://a.b>", "été"]
HARD += [
    "    four",
    "10",
    "-1e3",
    "日本",
    "🐦",
    '"x"',
    "$x^2$",
    "a: b",
    "line\nbreak",
    "- [ ] to do",
]


def test_names_are_shown_as_they_stand():
    lines = text_of(plain_card(model_with({}, tuple(HARD)), "**my_model** <x>"))
    assert lines[0] == "**my_model** <x>"
    shown = [" ".join(name.split()) for name in HARD]
    assert lines[-len(HARD) :] == [f"{i}. {name}" for i, name in enumerate(shown, start=1)]


@pytest.mark.parametrize("odd", [None, "x", 3, 1.5, True, [], ["x"], {}, {"name": []}, 10**400])
def test_a_label_of_anything_gives_a_card(odd):
    """A bundle's label is data of its maker; saving it again must not depend on what it is."""
    for key in LABEL:
        assert plain_card(model_with({**LABEL, key: odd})).endswith("\n")
    for key in ("metric", "value", "low", "high"):
        card = plain_card(model_with({**LABEL, "score": {**LABEL["score"], key: odd}}))
        assert not re.search(r"\bnan\b|\binf\b", card)
    assert plain_card(model_with({**LABEL, "probe": {"name": "ridge", "penalty": odd}}))
