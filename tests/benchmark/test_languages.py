"""Languages: sources are folds, languages are balanced, readers stay together."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from package_tree import Tree, check_frame

from ossicle.benchmark.open_suite import languages, telephone, voices
from ossicle.benchmark.open_suite.languages import LANGUAGES, LANGUAGES_TOLD

(RECIPE,) = LANGUAGES


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "packages")
    for package in RECIPE.packages:
        tree.package(package)
    for language in (*LANGUAGES_TOLD, "sr@latin"):
        for word in ("œil-1", "б в", "c"):
            tree.sound("ktuberling-data", f"ktuberling/sounds/{language}/{word}.ogg", seconds=0.6)
            path = f"qabcs/abcs/{language}/sounds/words/{word}.ogg"
            tree.sound("qabcs-data", path, seconds=0.6)
    return tree


def build(tree: Tree, folder: Path) -> pd.DataFrame:
    for voice in telephone.VOICES:
        suffix = ".gsm" if voice.folder in ("es", "fr") else ".wav"
        root = f"asterisk/sounds/{voice.folder}"
        for name in ("vm-goodbye", "digits/7", "letters/a", "phonetic/b_p", "silence/1"):
            tree.sound(voice.package, f"{root}/{name}{suffix}", seconds=0.6)
    return RECIPE.build(tree.packages(), folder, None)


def test_folds_are_sources_and_each_language_is_learnt_elsewhere(
    tree: Tree, tmp_path: Path
) -> None:
    frame = build(tree, tmp_path / "made")
    check_frame(frame)
    assert set(frame["label"]) == set(LANGUAGES_TOLD)
    counts = pd.crosstab(frame["label"], frame["fold"]).to_dict()
    assert counts["ktuberling"] == counts["qabcs"] == dict.fromkeys(LANGUAGES_TOLD, 3)
    voices_of = [voice.language for voice in telephone.VOICES]
    assert counts["asterisk"] == {name: 2 * voices_of.count(name) for name in LANGUAGES_TOLD}
    assert not frame["path"].str.contains("letters|phonetic|silence").any()


def test_names_are_read_as_their_packages_mean_them(tree: Tree, tmp_path: Path) -> None:
    stamps = "tuxpaint-stamps-default"
    root = "tuxpaint/stamps/animals"
    for name in ("dog_desc", "dog_desc_fr", "dog_fr", "dog", "dog_desc_el", "a b_desc_nl"):
        tree.sound(stamps, f"{root}/{name}.ogg", seconds=0.6)
    for name in ("en/syllab/ba", "en_GB/syllab/ba", "en/alpha/b", "ml/syllab/ba"):
        tree.sound("klettres-data", f"klettres/{name}.ogg", seconds=0.6)
    tree.sound("qabcs-data", "qabcs/abcs/en_gb/sounds/words/lift.ogg", seconds=0.6)
    tree.sound("qabcs-data", "qabcs/abcs/en/sounds/alpha/a.ogg", seconds=0.6)
    tree.sound("kajongg", "kajongg/voices/male1/b1.ogg", seconds=0.6)
    tree.sound("kajongg", "kajongg/voices/de/male1/b1.ogg", seconds=0.6)
    tree.sound(
        voices.FISH_PACKAGES["nl"], "games/fillets-ng/sound/dump/nl/dum-v-é.ogg", seconds=0.6
    )
    tree.sound("ktuberling-data", "ktuberling/sounds/de/short.ogg", seconds=0.2)
    frame = build(tree, tmp_path / "made")
    check_frame(frame)
    share = frame["path"].map(lambda path: path.split("/usr/share/")[-1])
    found = dict(zip(share, zip(frame["label"], frame["fold"], strict=True), strict=True))
    expected = {
        f"{root}/dog_desc.ogg": ("en", "stamps"),
        f"{root}/dog_desc_fr.ogg": ("fr", "stamps"),
        f"{root}/a b_desc_nl.ogg": ("nl", "stamps"),
        "klettres/en/syllab/ba.ogg": ("en", "klettres"),
        "klettres/en_GB/syllab/ba.ogg": ("en", "klettres"),
        "qabcs/abcs/en_gb/sounds/words/lift.ogg": ("en", "qabcs"),
        "kajongg/voices/male1/b1.ogg": ("en", "games"),
        "kajongg/voices/de/male1/b1.ogg": ("de", "games"),
        "games/fillets-ng/sound/dump/nl/dum-v-é.ogg": ("nl", "games"),
    }
    extra = {
        path: row
        for path, row in found.items()
        if row[1] != "asterisk"
        and "œil-1" not in path
        and not path.endswith(("/б в.ogg", "/c.ogg"))
    }
    assert extra == expected


def test_languages_and_their_sources_are_balanced(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(30):
        tree.sound("ktuberling-data", f"ktuberling/sounds/fr/mot {n}.ogg", seconds=0.6)
    monkeypatch.setattr(languages, "CLIPS_A_LANGUAGE", 6)
    frame = build(tree, tmp_path / "made")
    assert frame["label"].value_counts().to_dict() == dict.fromkeys(LANGUAGES_TOLD, 6)
    french = frame["fold"][frame["label"] == "fr"].value_counts().to_dict()
    assert french == {"ktuberling": 2, "qabcs": 2, "asterisk": 2}
    pd.testing.assert_frame_equal(frame, build(tree, tmp_path / "made"))
    assert set(frame["offset"]) == {languages.LONGEST_S}
