"""Effects by their names: one class or none, each sound once, packages never on both sides."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from package_tree import Tree, check_frame

from ossicle.benchmark.open_suite import effects
from ossicle.benchmark.open_suite.effects import ANIMALS, EFFECTS, EVENTS, kind
from ossicle.benchmark.open_suite.sources import (
    Clip,
    at_most,
    fold_of_sources,
    in_folds,
    spread,
    without_copies,
    without_repeats,
    words,
)
from ossicle.benchmark.task import DOMAINS
from ossicle.errors import DataError

RECIPES = {recipe.name: recipe for recipe in EFFECTS}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "packages")
    for recipe in EFFECTS:
        for package in recipe.packages:
            tree.package(package)
    return tree


def noise(path: Path, seconds: float = 1.5, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).uniform(-0.4, 0.4, round(seconds * 16_000))
    soundfile.write(path, samples, 16_000)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sfx_DoorSlam2.wav", ("sfx", "door", "slam")),
        ("default_grass_footstep.1.ogg", ("default", "grass", "footstep")),
        ("DRIP.WAV", ("drip",)),
        ("NYX_STEP_DIRT1.ogg", ("nyx", "step", "dirt")),
        ("water.opus.ogg", ("water",)),
        ("1-2.au", ()),
    ],
)
def test_words(name: str, expected: tuple[str, ...]) -> None:
    assert words(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/usr/share/a/sounds/big_explosion_1.wav", "explosion"),
        ("a/usr/share/a/sounds/DoorClose.mp3", "door"),
        ("a/usr/share/a/sounds/stone_hit.wav", "stone"),
        ("a/usr/share/a/sounds/dog_bark.wav", "dog"),  # two words of one class
        ("a/usr/share/a/sounds/fire.wav", None),  # what a weapon does
        ("a/usr/share/a/sounds/fireball.wav", None),
        ("a/usr/share/a/sounds/firearm.wav", None),
        ("a/usr/share/a/sounds/rocket.wav", None),  # no rock
        ("a/usr/share/a/sounds/paint1.wav", None),  # no pain
        ("a/usr/share/a/sounds/stepdown.wav", None),
        ("a/usr/share/a/sounds/thunderbird.wav", None),
        ("a/usr/share/a/sounds/gun_metal.wav", None),  # two classes
        ("a/usr/share/a/music/rock.ogg", None),
        ("a/usr/share/a/Music/rock.ogg", None),
        ("a/usr/share/a/songs/water.ogg", None),
        ("a/usr/share/a/voices/Pirate/rock.ogg", None),
        ("rock-music/usr/share/a/sounds/rock.ogg", "stone"),  # a package's name is no folder
        ("qabcs-data/usr/share/games/qabcs/abcs/en/sounds/words/dog.ogg", None),
        ("a/usr/share/a/sounds/WindMill1.wav", None),
        ("a/usr/share/a/sounds/on_the_water_song.ogg", None),
    ],
)
def test_kind_of_an_event(name: str, expected: str | None) -> None:
    assert kind(name, EVENTS) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t/stamps/animals/mammals/horse.ogg", "horse"),
        ("t/stamps/animals/mammals/horse_desc_fr.ogg", None),  # somebody says "horse"
        ("m/sounds/bull_attack2.wav", "cow"),
        ("m/sounds/bulldozer.wav", None),
        ("m/sounds/horseman_ack1.wav", None),
        ("w/sounds/horse-canter.wav", None),  # hooves
        ("q/noises/rocking_horse.ogg", None),
        ("q/noises/seahorse.ogg", None),  # one word, and none of them
        ("s/Animal/SeaLion.mp3", None),
        ("t/sea_lion.ogg", None),
        ("s/Animal/Duck.wav", "fowl"),
        ("s/catapult.wav", None),
        ("s/caterpillar_cat.wav", "cat"),
    ],
)
def test_kind_of_an_animal(name: str, expected: str | None) -> None:
    assert kind(name, ANIMALS) == expected


def test_no_word_is_of_two_classes() -> None:
    for classes in (EVENTS, ANIMALS):
        for label in classes:
            assert kind(f"p/{label}.wav", classes) in (label, None)


def test_same_bytes_once_and_their_sources_joined(tmp_path: Path) -> None:
    a = noise(tmp_path / "a.wav", seed=1)
    for name in ("b", "c"):
        (tmp_path / f"{name}.wav").write_bytes(a.read_bytes())
    other = noise(tmp_path / "d.wav", seed=2)
    clips = [
        Clip(other, "bell", "three"),
        Clip(tmp_path / "c.wav", "door", "three"),
        Clip(tmp_path / "b.wav", "door", "two"),
        Clip(a, "door", "one"),
    ]
    assert without_repeats(clips) == [Clip(a, "door", "one"), Clip(other, "bell", "one")]
    assert without_repeats(clips, join=False) == [Clip(other, "bell", "three")]
    contradicting = [*clips[:3], Clip(a, "metal", "one")]
    assert without_repeats(contradicting) == [Clip(other, "bell", "one")]


def test_same_sound_is_found_when_coded_cut_and_scaled(tmp_path: Path) -> None:
    samples = np.random.default_rng(3).uniform(-0.4, 0.4, 3 * 16_000)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    soundfile.write(tmp_path / "b.flac", samples * 0.5, 16_000)
    soundfile.write(tmp_path / "c.wav", samples[8_000:40_000], 16_000)
    noise(tmp_path / "d.wav", 3.0, seed=4)
    clips = [
        Clip(tmp_path / name, "water", source)
        for name, source in (("a.wav", "A"), ("b.flac", "B"), ("c.wav", "C"), ("d.wav", "D"))
    ]
    assert without_repeats(clips) == clips
    assert without_copies(clips) == [clips[0], clips[3]]
    assert without_copies(clips, join=False) == [clips[3]]
    assert without_copies([*clips[:2], clips[3]._replace(source="B")])[1].source == "A"
    assert without_copies([]) == []


@pytest.mark.parametrize(("n", "most"), [(0, 3), (2, 3), (3, 3), (10, 3), (7, 5), (100, 12)])
def test_spread_is_even(n: int, most: int) -> None:
    chosen = spread(range(n), most)
    assert len(chosen) == min(n, most) and chosen == sorted(set(chosen))
    if n > most:
        gaps = {b - a for a, b in pairwise(chosen)}
        assert chosen[0] == 0 and max(gaps) - min(gaps) <= 1


def test_at_most_counts_a_label_of_a_source() -> None:
    clips = [
        Clip(Path(f"{source}/{label}{i}.wav"), label, source)
        for source, n in (("one", 9), ("two", 2))
        for label in ("bell", "door")
        for i in range(n)
    ]
    kept = at_most(clips[::-1], 3)
    count = {(c.source, c.label): 0 for c in kept}
    for clip in kept:
        count[clip.source, clip.label] += 1
    assert set(count.values()) == {3, 2}
    assert kept == at_most(clips, 3)
    assert [c.path.name for c in kept[:3]] == ["bell0.wav", "bell3.wav", "bell6.wav"]


def test_folds_are_even_and_no_matter_of_order() -> None:
    clips = [
        Clip(Path(f"{source}/{label}{i}.wav"), label, source)
        for source in "abcdefghij"
        for label in ("bell", "door")
        for i in range(3)
    ]
    chosen = fold_of_sources(clips, 5)
    assert chosen == fold_of_sources(clips[::-1], 5)
    assert sorted(chosen.values()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_rare_class_is_parted_whatever_the_common_do() -> None:
    clips = [Clip(Path(f"{s}/{i}.wav"), "door", s) for s in "abcd" for i in range(50)]
    clips += [Clip(Path(f"{s}/bell.wav"), "bell", s) for s in "ab"]
    chosen = fold_of_sources(clips, 2)
    assert chosen["a"] != chosen["b"] and sorted(chosen.values()) == [0, 0, 1, 1]


def test_fullness_yields_to_classes() -> None:
    clips = [Clip(Path(f"x/{i}{label}"), label, "x") for i in range(9) for label in ("a", "b")]
    clips += [Clip(Path("y"), "a", "y"), Clip(Path("z"), "b", "z")]
    clips += [Clip(Path(source), "bell", source) for source in ("s", "t")]
    chosen = fold_of_sources(clips, 2)  # by size alone, s and t would be together, away from x
    assert chosen["s"] != chosen["t"] and chosen["x"] not in (chosen["y"], chosen["z"])


def test_class_of_one_source_is_refused() -> None:
    clips = [Clip(Path(f"{s}.wav"), "door", s) for s in "abc"] + [Clip(Path("x"), "bell", "a")]
    with pytest.raises(DataError, match="'bell'"):
        fold_of_sources(clips, 3)
    with pytest.raises(DataError, match="none of the packages"):
        in_folds([], 3, longest_s=5.0)


def test_long_files_are_cut(tmp_path: Path) -> None:
    broken = tmp_path / "c.wav"
    broken.write_bytes(b"RIFF")
    clips = [
        Clip(noise(tmp_path / "a.wav", 5.0), "rain", "one"),
        Clip(noise(tmp_path / "b.wav", 5.5), "rain", "two"),
        Clip(broken, "rain", "three"),
    ]
    table = in_folds(clips, 3, longest_s=5.0)
    assert table["onset"].isna().tolist() == [True, False, True]
    assert (table["onset"][1], table["offset"][1]) == (0.0, 5.0)


def fill(tree: Tree, packages: tuple[str, ...], labels: tuple[str, ...], copies: int = 1) -> None:
    for package in packages:
        for label in labels:
            for i in range(copies):
                tree.sound(package, f"games/x/sounds/{label}{i}.wav", seconds=0.5)


def test_sound_events(tree: Tree, tmp_path: Path) -> None:
    packages = RECIPES["sound_events"].packages[:6]
    fill(tree, packages, ("bell", "door", "explosion", "fire", "paint"))
    fill(tree, packages[:2], ("dog",), copies=20)
    tree.sound(packages[0], "games/x/sounds/bell0.au", seconds=0.5)  # of two codings, one
    tree.sound(packages[0], "games/x/music/rock.wav")
    first = tree.sound(packages[2], "games/x/sounds/laser.wav")
    tree.sound(packages[3], "games/x/sounds/laser.wav", like=first)
    tree.sound(packages[4], "games/x/sounds/laser.wav", seconds=6.0)
    table = RECIPES["sound_events"].build(tree.packages(), tmp_path / "out", None)
    check_frame(table)
    assert set(table["label"]) == {"bell", "door", "explosion", "dog", "laser"}
    of = table.groupby("label").size()
    assert (of["bell"], of["dog"], of["laser"]) == (6, 24, 2)
    joined = table[table["group"] == packages[2]]["path"]
    assert {Path(path).relative_to(tree.folder).parts[0] for path in joined} == set(packages[2:4])
    assert table["offset"].dropna().tolist() == [effects.LONGEST_S]
    again = RECIPES["sound_events"].build(tree.packages(), tmp_path / "out", None)
    pd.testing.assert_frame_equal(table, again)
    assert not (tmp_path / "out").exists()  # nothing is rendered


def test_animals(tree: Tree, tmp_path: Path) -> None:
    packages = RECIPES["animals"].packages[:4]
    fill(tree, packages, ("horse", "duck"))
    one = tree.sound(packages[0], "games/x/sounds/cow.wav")
    tree.sound(packages[1], "games/x/sounds/cow.wav", like=one)  # left out of both
    for package in packages[2:]:
        tree.sound(package, "games/x/sounds/moo.wav")
    table = RECIPES["animals"].build(tree.packages(), tmp_path / "out", None)
    check_frame(table)
    assert table["group"].nunique() == 4
    assert table.groupby("label").size().to_dict() == {"cow": 2, "fowl": 4, "horse": 4}


@pytest.mark.parametrize("recipe", EFFECTS, ids=lambda recipe: recipe.name)
def test_recipe_says_what_it_is(recipe) -> None:  # type: ignore[no-untyped-def]
    assert recipe.domain in DOMAINS and recipe.caveat and recipe.licence
    assert recipe.packages == tuple(sorted(set(recipe.packages)))
