"""Who speaks: rows out of small packages, against what their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from package_tree import Tree, check_frame

from ossicle.audio import load
from ossicle.benchmark.open_suite import telephone, voices
from ossicle.benchmark.open_suite.voices import VOICES, fish_lines
from ossicle.benchmark.task import DOMAINS
from ossicle.errors import DataError

RECIPES = {recipe.name: recipe for recipe in VOICES}
TONES = "gcin-voice/ogg"


def build(name: str, tree: Tree, folder: Path) -> pd.DataFrame:
    return RECIPES[name].build(tree.packages(), folder, None)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "packages")


@pytest.fixture
def asterisk(tree: Tree) -> Tree:
    for voice in telephone.VOICES:
        suffix = ".gsm" if "prompt-es" in voice.package or "armelle" in voice.package else ".wav"
        root = f"asterisk/sounds/{voice.folder}"
        for name in ("vm-goodbye", "vm-sorry", "conf-muted", "digits/7", "silence/1"):
            tree.sound(voice.package, f"{root}/{name}{suffix}")
        tree.sound(voice.package, f"{root}/vm-and{suffix}", seconds=0.4)
    return tree


@pytest.fixture
def fillets(tree: Tree) -> Tree:
    for language, package in voices.FISH_PACKAGES.items():
        root = "games/fillets-ng/sound"
        for level in ("atlantis", "cabin1", "dump", "share/border"):
            short = level.split("/")[-1][:3]
            for who in ("m", "v", "hs"):
                tree.sound(package, f"{root}/{level}/{language}/{short}-{who}-ano ne.ogg")
                tree.sound(package, f"{root}/{level}/{language}/{short}-{who}-é.ogg", seconds=0.5)
        tree.sound(package, f"{root}/atlantis/atl-m-elsewhere.ogg")
    return tree


def test_tone_is_the_folders_digit_and_the_speaker_the_fold(tree: Tree, tmp_path: Path) -> None:
    for folder in ("ㄇㄚ", "ㄇㄚ1", "ㄇㄚ2", "ㄇㄚ3", "ㄇㄚ4", "ㄅ", "ㄅ4", "ㄕ"):
        for speaker in "35":
            tree.sound("gcin-voice", f"{TONES}/{folder}/{speaker}.ogg", seconds=0.3)
    tree.sound("gcin-voice", f"{TONES}/ㄌㄜ4/3.ogg")  # the other speaker has no such syllable
    frame = build("tone", tree, tmp_path)
    check_frame(frame)
    expected = {
        (folder, speaker): (label, f"speaker {speaker}")
        for folder, label in {
            "ㄇㄚ": "tone 1",
            "ㄕ": "tone 1",
            "ㄇㄚ2": "tone 2",
            "ㄇㄚ3": "tone 3",
            "ㄇㄚ4": "tone 4",
        }.items()
        for speaker in "35"
    }
    found = {
        (Path(path).parent.name, Path(path).stem): (label, fold)
        for path, label, fold in zip(frame["path"], frame["label"], frame["fold"], strict=True)
    }
    assert found == expected
    # All tones of a syllable by a speaker stay together.
    assert frame["group"].nunique() == 4


def test_tone_takes_the_same_syllables_of_both(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for syllable in ("ㄇㄚ", "ㄊㄢ", "ㄌㄧㄥ", "ㄕㄠ", "ㄍㄨ"):
        for tone in ("", "2", "3", "4"):
            for speaker in "35":
                tree.sound("gcin-voice", f"{TONES}/{syllable}{tone}/{speaker}.ogg", seconds=0.3)
    monkeypatch.setattr(voices, "CLIPS_A_TONE", 2)
    frame = build("tone", tree, tmp_path)
    taken = [
        {Path(path).parent.name for path in frame["path"][frame["fold"] == fold]}
        for fold in ("speaker 3", "speaker 5")
    ]
    assert taken[0] == taken[1]
    assert frame["label"].value_counts().to_dict() == {f"tone {tone}": 4 for tone in "1234"}


def test_fishes_are_told_by_their_letter_and_only_in_the_languages_folders(fillets: Tree) -> None:
    lines = fish_lines(fillets.packages(), "cs")
    assert set(lines) == {"m", "v"}
    assert {level: len(paths) for level, paths in lines["m"].items()} == {
        "atlantis": 2,
        "cabin1": 2,
        "dump": 2,
        "border": 2,
    }


def test_speaker_halves_share_no_level_and_no_topic(
    asterisk: Tree, fillets: Tree, tmp_path: Path
) -> None:
    frame = build("speaker", asterisk, tmp_path / "made")
    check_frame(frame)
    assert sorted(frame["label"].unique()) == sorted(
        [*{voice.speaker for voice in telephone.VOICES}]
        + [f"{size} fish, {language}" for size in ("small", "big") for language in ("cs", "nl")]
    )
    fish = frame[frame["label"].str.contains("fish")]
    level = fish["path"].map(lambda path: Path(path).parent.parent.name)
    assert set(level[fish["fold"] == "half 1"]) == {"atlantis", "cabin1"}
    assert set(level[fish["fold"] == "half 2"]) == {"border", "dump"}
    # The two fishes of a scene are one group; half a second is too short.
    assert fish.groupby("group").size().to_dict() == {
        f"{language}/{name}": 2
        for language in ("cs", "nl")
        for name in ("atlantis", "border", "cabin1", "dump")
    }
    spoken = frame[~frame["label"].str.contains("fish")]
    mailbox = spoken["path"].map(lambda path: Path(path).name.startswith("vm-"))
    assert (mailbox == (spoken["fold"] == "half 1")).all()
    assert not spoken["path"].str.contains("silence|vm-and").any()


def test_allison_is_learnt_in_one_language_and_tested_in_the_other(
    asterisk: Tree, fillets: Tree, tmp_path: Path
) -> None:
    frame = build("speaker", asterisk, tmp_path / "made")
    allison = frame[frame["label"] == "Allison"]
    language = allison["path"].str.extract(r"asterisk-core-sounds-(..)-wav")[0]
    assert dict(zip(allison["fold"], language, strict=True)) == {"half 1": "en", "half 2": "es"}
    assert language.nunique() == 2
    assert len(allison) == 4


def test_gsm_becomes_wav_below_the_folder_given(
    asterisk: Tree, fillets: Tree, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    frame = build("speaker", asterisk, made)
    outside = [path for path in frame["path"] if not Path(path).is_relative_to(asterisk.folder)]
    assert outside
    assert all(Path(path).is_relative_to(made) and path.endswith(".wav") for path in outside)
    assert set(frame["label"][frame["path"].isin(outside)]) == {"July", "Armelle"}
    name = "asterisk-prompt-es-co/vm-goodbye.wav"
    source = asterisk.folder / "asterisk-prompt-es-co/usr/share/asterisk/sounds/es/vm-goodbye.gsm"
    # FFmpeg decodes GSM 06.10 by its own code.
    av = pytest.importorskip("av")
    with av.open(str(source), format="gsm") as container:
        frames = [piece.to_ndarray()[0] for piece in container.decode(audio=0)]
    witness = np.concatenate(frames) / 32768
    audio = load(made / name)
    assert audio.sample_rate == 8_000
    assert np.abs(audio.samples[0, : len(witness)] - witness).max() <= 1 / 32768


def test_voice_sex_follows_fish_and_folder(
    fillets: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for parent in ("voices", "voices/de"):
        for voice in ("female1", "female2", "male1", "male2"):
            for word in ("b1", "pung", "violatesoriginalcall"):
                fillets.sound("kajongg", f"kajongg/{parent}/{voice}/{word}.ogg", seconds=0.6)
    fillets.sound("kajongg", "kajongg/voices/robot1/b1.ogg")
    monkeypatch.setattr(voices, "CLIPS_A_PLAYER", 2)
    frame = build("voice_sex", fillets, tmp_path)
    check_frame(frame)
    tiles = frame[frame["fold"] == "kajongg"]
    assert tiles.groupby("group").size().eq(2).all()
    assert tiles["group"].nunique() == 8
    witness = tiles["path"].str.contains("/female").map({True: "female", False: "male"})
    assert (tiles["label"] == witness).all()
    fish = frame[frame["fold"] != "kajongg"]
    witness = fish["path"].str.contains("-m-").map({True: "female", False: "male"})
    assert (fish["label"] == witness).all()
    assert set(frame["fold"]) == {"kajongg", "fillets-ng-data-cs", "fillets-ng-data-nl"}


def test_the_same_packages_give_the_same_rows(
    asterisk: Tree, fillets: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voices, "CLIPS_A_FOLD", 1)
    first = build("speaker", asterisk, tmp_path / "made")
    again = build("speaker", asterisk, tmp_path / "made")
    pd.testing.assert_frame_equal(first, again)
    assert first.groupby(["label", "fold"]).size().eq(1).all()


def test_what_is_missing_or_damaged_is_named(asterisk: Tree, tmp_path: Path) -> None:
    voice = telephone.Voice("Nobody", "es", "asterisk-prompt-es-co", "xx")
    with pytest.raises(DataError, match=r"no folder sounds/xx"):
        telephone.prompts(asterisk.packages(), voice)
    voice = next(v for v in telephone.VOICES if v.speaker == "July")
    gone = tmp_path / "gone.gsm"
    with pytest.raises(DataError, match=r"gone\.gsm: cannot be read as GSM"):
        telephone.playable(gone, "gone", voice, tmp_path)
    with pytest.raises(DataError, match="tone: no clip was found"):
        asterisk.package("gcin-voice")
        build("tone", asterisk, tmp_path)


def test_recipes_say_what_they_are() -> None:
    for recipe in VOICES:
        assert recipe.domain in DOMAINS
        assert recipe.caveat and recipe.title and recipe.licence
    assert soundfile.check_format("RAW", "GSM610")
