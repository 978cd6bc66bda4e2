"""Speech and music are made alike in all but what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from package_tree import Tree, check_frame

from ossicle.benchmark.open_suite import speech_music
from ossicle.benchmark.open_suite.speech_music import LEVEL, RATE, SPEECH_MUSIC, music, speech
from ossicle.benchmark.task import DOMAINS
from ossicle.errors import DataError

RECIPE = SPEECH_MUSIC[0]
SPOKEN = {
    "fillets-ng-data-cs": "games/fillets-ng/sound/dump/cs/dum-m-ano{}.ogg",
    "fillets-ng-data-nl": "games/fillets-ng/sound/dump/nl/dum-v-ja{}.ogg",
    "hedgewars-data": "games/hedgewars/Data/Sounds/voices/Pirate/Hello{}.ogg",
    "kajongg": "kajongg/voices/de/male2/chow{}.ogg",
    "klettres-data": "klettres/cs/syllab/ba{}.ogg",
    "ktuberling-data": "ktuberling/sounds/fr/oeil{}.ogg",
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "packages")
    for package in RECIPE.packages:
        tree.package(package)
    for package, name in SPOKEN.items():
        for i, seconds in enumerate((0.8, 1.2, 2.5, 6.0)):
            tree.sound(package, name.format(i), seconds=seconds)
    for package in ("adonthell-data", "amoebax-data", "drascula-music", "hedgewars-data"):
        for i in range(2):
            tree.sound(package, f"games/x/Music/track{i}.ogg", seconds=31 + i)
        tree.sound(package, "games/x/Music/jingle.ogg", seconds=3)
    tree.sound("ardentryst", "games/x/night.ogg", seconds=31)
    return tree


def test_speech_is_long_enough_and_cut_from_the_middle(tree: Tree) -> None:
    cuts = speech(tree.packages())
    assert len(cuts) == 6 * 3
    spans = sorted({(cut.onset, cut.offset) for cut in cuts})
    assert spans == [(0.0, 1.2), (0.0, 2.5), (1.0, 5.0)]
    groups = {cut.group for cut in cuts}
    assert groups == {
        "fillets-ng-data-cs/m",
        "fillets-ng-data-nl/v",
        "hedgewars-data/Pirate",
        "kajongg/de/male2",
        "klettres-data/cs",
        "ktuberling-data/fr",
    }
    assert {cut.source for cut in cuts if "ktuberling" in cut.group} == {"klettres-data"}


def test_music_has_the_lengths_of_speech(tree: Tree) -> None:
    lengths = [1.0, 2.0, 4.0, 1.5]
    cuts = music(tree.packages(), lengths)
    assert [cut.offset - cut.onset for cut in cuts] == pytest.approx(lengths)
    middles = [(cut.offset + cut.onset) / 2 for cut in cuts]
    assert middles == pytest.approx([0.3 * 31, 0.5 * 31, 0.7 * 31, 0.3 * 32])
    assert [cut.group for cut in cuts] == ["adonthell-data/track0"] * 3 + ["adonthell-data/track1"]
    same = tree.folder / "hedgewars-data/usr/share/games/x/Music/track0.ogg"
    tree.sound("hedgewars-data", "games/x/Music/track9.ogg", like=same)
    every = music(tree.packages(), [1.0] * 100)
    assert len(every) == 4 * 2 * 3 and not any("night" in cut.group for cut in every)


def test_build(tree: Tree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = RECIPE.build(tree.packages(), out, None)
    check_frame(table)
    assert table.groupby("label").size().to_dict() == {"music": 18, "speech": 18}
    length: dict[str, list[int]] = {"speech": [], "music": []}
    for path, label in zip(table["path"], table["label"], strict=True):
        assert Path(path).parent == out
        samples, rate = soundfile.read(path)
        assert rate == RATE and samples.ndim == 1
        assert np.sqrt(np.mean(samples**2)) == pytest.approx(LEVEL, rel=1e-3)
        length[label].append(len(samples))
    speech_s, music_s = (np.sort(length[name]) / RATE for name in ("speech", "music"))
    np.testing.assert_allclose(music_s, speech_s, atol=2e-4)
    of_kde = table[table["group"].str.match("klettres|ktuberling")]
    assert of_kde["group"].nunique() == 2 and of_kde["fold"].nunique() == 1
    content = [Path(path).read_bytes() for path in table["path"]]
    again = RECIPE.build(tree.packages(), out, None)
    pd.testing.assert_frame_equal(table, again)
    assert content == [Path(path).read_bytes() for path in again["path"]]


def test_peaks_are_not_clipped_and_silence_is_left_out(tmp_path: Path) -> None:
    click = np.zeros(16_000)
    click[8_000] = 0.5
    soundfile.write(tmp_path / "click.wav", click, 16_000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    cuts = [
        speech_music.Cut(tmp_path / name, "music", "a", "a/x", 0.0, 1.0)
        for name in ("click.wav", "silence.wav", "missing.wav")
    ]
    written = list(speech_music._written(cuts, tmp_path))
    assert [cut.path.name for cut, _ in written] == ["click.wav"]
    samples, _ = soundfile.read(written[0][1])
    assert np.abs(samples).max() == pytest.approx(0.99, abs=1e-3)


def test_without_speech_it_says_so(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "packages")
    for package in RECIPE.packages:
        tree.package(package)
    with pytest.raises(DataError, match="speech"):
        RECIPE.build(tree.packages(), tmp_path / "out", None)


def test_recipe_says_what_it_is() -> None:
    assert RECIPE.domain in DOMAINS and RECIPE.caveat and RECIPE.licence
