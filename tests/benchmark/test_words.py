"""What is said: rows out of small packages, and what becomes of sounds that repeat."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from package_tree import Tree, check_frame

from ossicle.benchmark.open_suite import telephone, words
from ossicle.benchmark.open_suite.drawing import draw, kept_once, long_enough, shares, table
from ossicle.benchmark.open_suite.words import WORDS
from ossicle.errors import DataError

RECIPES = {recipe.name: recipe for recipe in WORDS}
PACKS = "games/hedgewars/Data/Sounds/voices"
STAMPS = "tuxpaint/stamps/symbols/math"


def build(name: str, tree: Tree, folder: Path) -> pd.DataFrame:
    return RECIPES[name].build(tree.packages(), folder, None)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "packages")


def telephone_words(tree: Tree, said: tuple[str, ...]) -> None:
    for voice in telephone.VOICES:
        suffix = ".gsm" if voice.folder in ("es", "fr") else ".wav"
        for word in said:
            path = f"asterisk/sounds/{voice.folder}/digits/{word}{suffix}"
            tree.sound(voice.package, path, seconds=0.5)


def test_digits_come_from_prompts_and_stamps(tree: Tree, tmp_path: Path) -> None:
    telephone_words(tree, ("0", "7", "17", "h-7"))
    readers = {"": "en", "_en_GB": "en_GB", "_fr": "fr", "_desc_fr": "fr", "_it": "it"}
    for end in (*readers, "_ko", "_desc"):
        tree.sound("tuxpaint-stamps-default", f"{STAMPS}/7{end}.ogg", seconds=0.5)
        tree.sound("tuxpaint-stamps-default", f"{STAMPS}/0{end}.ogg", seconds=0.5)
    tree.sound("tuxpaint-stamps-default", f"{STAMPS}/operators/7_fr.ogg")
    frame = build("digits", tree, tmp_path / "made")
    check_frame(frame)
    assert frame["label"].value_counts().to_dict() == {"0": 13, "7": 13}
    said = frame["path"].map(lambda path: Path(path).stem[0])
    assert (said == frame["label"]).all()
    stamps = frame[frame["group"].str.startswith("stamps/")]
    assert set(stamps["group"]) == {f"stamps/{reader}" for reader in readers.values()}
    assert (frame["group"] == "Allison").sum() == 4  # she in both languages, in one fold


def test_every_language_of_the_digits_is_learnt_before_it_is_tested() -> None:
    language = {
        ("stamps", end): end.removeprefix("_desc")[1:3] or "en" for end in words.STAMP_FOLDS
    }
    folds = {("stamps", end): fold for end, fold in words.STAMP_FOLDS.items()}
    for voice in telephone.VOICES:
        language[voice.speaker, voice.language] = voice.language
        folds[voice.speaker, voice.language] = words.DIGIT_FOLDS[voice.speaker, voice.language]
    for reader, fold in folds.items():
        others = {language[other] for other in folds if folds[other] != fold}
        assert language[reader] in others, reader


def test_prompts_keep_the_words_that_all_six_voices_have(tree: Tree, tmp_path: Path) -> None:
    telephone_words(tree, ("3", "mon-0", "day-6", "today", "oclock"))
    lacking = next(v for v in telephone.VOICES if v.speaker == "Armelle")
    (tree.folder / lacking.package / "usr/share/asterisk/sounds/fr/digits/day-6.gsm").unlink()
    frame = build("prompts", tree, tmp_path / "made")
    check_frame(frame)
    assert frame["label"].value_counts().to_dict() == {"3": 6, "mon-0": 6, "today": 6}
    assert set(frame["group"]) == {"Allison", "July", "June", "Armelle", "Carlo", "Menardi"}
    speakers = {v.speaker: v.language for v in telephone.VOICES if v.language in ("es", "fr", "it")}
    for fold in ("voices 1", "voices 2"):
        inside = set(frame["group"][frame["fold"] == fold])
        assert sorted(speakers[name] for name in inside) == ["es", "fr", "it"]


def test_the_words_are_as_many_as_the_title_says() -> None:
    assert len(words.WORDS_SAID) == len(set(words.WORDS_SAID)) == 53
    assert RECIPES["prompts"].title.startswith("53 words")


def test_phrase_tests_both_languages_of_a_voice_at_once(tree: Tree, tmp_path: Path) -> None:
    for parent in ("voices", "voices/de"):
        for voice in ("female1", "female2", "male1", "male2"):
            for word in ("b1", "originalcall"):
                tree.sound("kajongg", f"kajongg/{parent}/{voice}/{word}.ogg", seconds=0.6)
    tree.sound("kajongg", "kajongg/voices/female2/kung.ogg")  # one voice's spelling of kong
    tree.sound("kajongg", "kajongg/voices/fr/female2/b1.ogg")
    frame = build("phrase", tree, tmp_path)
    check_frame(frame)
    assert frame["label"].value_counts().to_dict() == {"b1": 8, "originalcall": 8}
    assert frame.groupby("fold")["group"].agg(set).to_dict() == {
        voice: {f"en/{voice}", f"de/{voice}"} for voice in ("female1", "female2", "male1", "male2")
    }


def test_intention_is_the_event_without_its_number(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "FEWEST_PACKS", 9)
    for pack in (*words.PACK_FOLDS, "Default_pl"):
        for event in ("Ow1", "Ow2", "Ow3", "Uh-oh", "Fire"):
            tree.sound("hedgewars-data", f"{PACKS}/{pack}/{event}.ogg")
    voices = tree.folder / "hedgewars-data/usr/share" / PACKS
    for event in ("Ow1", "Uh-oh"):
        like = voices / "Classic" / f"{event}.ogg"
        tree.sound("hedgewars-data", f"{PACKS}/Default/{event}.ogg", like=like)
    # Two of ten packs lose it: fewer than nine groups are left.
    tree.sound("hedgewars-data", f"{PACKS}/Pirate/Fire.ogg", like=voices / "Surfer/Fire.ogg")
    frame = build("intention", tree, tmp_path)
    check_frame(frame)
    assert not frame["path"].str.contains("_pl").any()
    assert frame["label"].value_counts().to_dict() == {"Ow": 20, "Uh-oh": 9}
    # Classic and Default, which share recordings, are one.
    assert frame["group"].nunique() == 9
    assert set(frame["group"][frame["path"].str.contains("/Default/")]) == {"Classic"}


def row(path: Path, label: str, group: str, fold: str) -> dict[str, str | Path]:
    return {"path": path, "label": label, "group": group, "fold": fold}


def test_repeated_sounds_are_kept_once_or_not_at_all(tmp_path: Path) -> None:
    for name, content in {
        "a1": b"same", "a2": b"same", "b1": b"quarrel", "b2": b"quarrel",
        "c1": b"astride", "c2": b"astride", "d": b"xame",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    rows = [
        row(tmp_path / "a2", "A", "second", "1"),
        row(tmp_path / "a1", "A", "first", "1"),
        row(tmp_path / "b1", "A", "first", "1"),
        row(tmp_path / "b2", "B", "first", "1"),
        row(tmp_path / "c1", "A", "first", "1"),
        row(tmp_path / "c2", "A", "third", "2"),
        row(tmp_path / "d", "A", "second", "1"),
    ]
    assert kept_once(rows) == [
        row(tmp_path / "a1", "A", "first", "1"),
        row(tmp_path / "d", "A", "first", "1"),  # its group shares a sound with "first"
    ]
    assert rows[-1]["group"] == "second"


def test_shares_are_as_even_as_there_is() -> None:
    have = {"few": 3, "some": 20, "many": 90, "none": 0}
    assert shares(have, 1000) == have
    for total in range(114):
        taken = shares(have, total)
        assert sum(taken.values()) == total
        assert all(0 <= taken[name] <= have[name] for name in have)
        open_ended = [taken[name] for name in have if taken[name] < have[name]]
        # Whoever has some left got no less than anybody, to within one.
        assert all(n >= max(taken.values()) - 1 for n in open_ended)


def test_draws_are_the_same_everywhere_and_in_order() -> None:
    drawn = draw(list("abcdefghij"), 4, "seed")
    assert drawn == draw(list("abcdefghij"), 4, "seed") == sorted(drawn)
    assert len(set(drawn)) == 4
    assert len({tuple(draw(range(100), 5, str(seed))) for seed in range(20)}) == 20
    assert draw([3, 1, 2], 5, "seed") == [3, 1, 2]


def test_short_and_unreadable_files_are_passed_by(tree: Tree) -> None:
    paths = [tree.sound("p", f"{n}.wav", seconds=n / 10) for n in range(1, 9)]
    broken = tree.package("p") / "broken.wav"
    broken.write_bytes(b"no sound")
    found = long_enough([broken, *paths], 9, 0.5, "seed")
    assert [path.name for path in found] == ["5.wav", "6.wav", "7.wav", "8.wav"]
    two = long_enough(paths, 2, 0.5, "seed")
    assert two == long_enough(paths[::-1], 2, 0.5, "seed")
    assert len(two) == 2
    assert set(two) <= set(found)


def test_a_group_in_two_folds_is_refused(tmp_path: Path) -> None:
    rows = [row(tmp_path / "a", "A", "one", "1"), row(tmp_path / "b", "A", "one", "2")]
    with pytest.raises(DataError, match="task: group one stands in several folds"):
        table(rows, "task")
    with pytest.raises(DataError, match="task: no clip"):
        table([], "task")
