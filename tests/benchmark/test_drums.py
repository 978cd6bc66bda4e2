"""Strokes of drum kits: what names and kits say, and when they contradict each other."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from package_tree import Tree, check_frame

from ossicle.benchmark.open_suite.drums import DRUMS, DRUMS_BY_NAME, layers, stroke
from ossicle.benchmark.task import DOMAINS
from ossicle.errors import DataError

RECIPE = DRUMS[0]
KITS = "hydrogen/data/drumkits"


def sheet(instruments: dict[str, list[str]], namespace: str = "") -> str:
    rows = "".join(
        f"<instrument><name>{name}</name>"
        + "".join(f"<layer><filename>{file}</filename></layer>" for file in files)
        + "</instrument>"
        for name, files in instruments.items()
    )
    return (
        f'<?xml version="1.0"?><drumkit_info{namespace}><name>Kit of Snares</name>'
        f"<info>&lt;!DOCTYPE HTML&gt;</info><instrumentList>{rows}</instrumentList></drumkit_info>"
    )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "packages")
    for package in RECIPE.packages:
        tree.package(package)
    return tree


def kit(tree: Tree, name: str, instruments: dict[str, list[str]]) -> None:
    for files in instruments.values():
        for file in files:
            tree.sound("hydrogen-drumkits", f"{KITS}/{name}/{file}", seconds=0.6)
    folder = tree.folder / "hydrogen-drumkits/usr/share" / KITS / name
    (folder / "drumkit.xml").write_text(sheet(instruments), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Kick-Hard.wav", "kick"),
        ("bassdrum-4mics-br-soft4.flac", "kick"),
        ("drum_bass_hard.flac", "kick"),
        ("bd_808.flac", "kick"),
        ("SnareOff-0.wav", "snare"),
        ("rsnare_01.flac", "snare"),
        ("PowR_SN_1.flac", "snare"),
        ("HatClosed-Softest.wav", "closed_hat"),
        ("hhclosed_01.flac", "closed_hat"),
        ("Hard_CHH_01.flac", "closed_hat"),
        ("closehihat3.flac", "closed_hat"),
        ("VP Hat 1 Cl.flac", "closed_hat"),
        ("VP Hat 1 Op.flac", "open_hat"),
        ("hihat-open-4.flac", "open_hat"),
        ("Hard_Hse_OHH_1.flac", "open_hat"),
        ("floortom_01.flac", "tom"),
        ("808_Tom_Hi.flac", "tom"),
        ("cra_Rock_a.flac", "crash"),
        ("24Ride-1.wav", "ride"),
        ("PearlSideStick-Med.wav", "rim"),
        ("RimClick-0.wav", "rim"),
        ("HandClap.wav", "clap"),
        ("HatSemiOpen-Hard.wav", None),
        ("HatPedal-Hard.wav", None),
        ("VP Hat 1 Pd.flac", None),
        ("SnareRimshot-Hard.wav", None),
        ("CrashRide18-0.wav", None),
        ("crash16i__ride2.flac", None),
        ("RideBell-0.wav", None),
        ("drum_cymbal_open.flac", None),
        ("emptySample.flac", None),
        ("loop_amen.flac", None),
        ("hat.wav", None),
        ("bride.wav", None),
        ("custom.wav", None),
    ],
)
def test_stroke_by_file_name(name: str, expected: str | None) -> None:
    assert stroke(name, ()) == expected


@pytest.mark.parametrize(
    ("name", "players", "expected"),
    [
        ("BD_01.aiff", {"BassDrum"}, "kick"),
        ("TM_01.aiff", {"Tom"}, "tom"),
        ("tom_01.flac", {"Tom Mid", "Tom Hi"}, "tom"),
        ("86335__tom-0105.wav", {"Kick"}, None),
        ("crash16i__ride2.flac", {"crash16inch"}, None),
        ("hh_p.flac", {"Pedal HH"}, None),
        ("x.flac", {"Snare", "Kick"}, None),
        ("Snare-0.wav", {"Snare (Pearl Free Floating Maple 14x3.5)"}, "snare"),
        ("x.wav", {"c#3 - stick"}, "rim"),
        ("x.wav", {"f#4 - "}, None),
        ("x.wav", (), None),
    ],
)
def test_stroke_by_instrument(name: str, players: set[str], expected: str | None) -> None:
    assert stroke(name, players) == expected


def test_layers_with_and_without_a_namespace(tmp_path: Path) -> None:
    path = tmp_path / "drumkit.xml"
    instruments = {"Tom Mid": ["tom 1.flac"], "Tom Hi": ["tom 1.flac", "b.wav"], "17": []}
    expected = {"tom 1.flac": {"Tom Mid", "Tom Hi"}, "b.wav": {"Tom Hi"}}
    for namespace in ("", ' xmlns="http://www.hydrogen-music.org/drumkit"'):
        path.write_text(sheet(instruments, namespace), encoding="utf-8")
        assert layers(path) == expected


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>',
        "<a><!DOCTYPE c></a>",
        "<a>",
        "",
        "no kit",
    ],
)
def test_hostile_and_broken_kits_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "drumkit.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="drumkit.xml"):
        layers(path)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "cp037"])
def test_document_type_in_another_coding_is_refused(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "drumkit.xml"
    head = f'<?xml version="1.0" encoding="{coding}"?>'
    path.write_bytes(f'{head}<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'.encode(coding))
    with pytest.raises(DataError, match="drumkit.xml"):
        layers(path)


def test_kits_are_the_groups(tree: Tree, tmp_path: Path) -> None:
    for name in ("One", "Two", "Three", "Audiophob"):
        kit(
            tree,
            name,
            {
                "Kick": ["a.wav", "kick2.wav"],
                "Closed HH": ["c.wav"],
                "Snare Rock": [f"snare{i}.wav" for i in range(10)],
                "Pedal HH": ["hh_closed.wav"],
                "Open HH": ["tom.wav"],
            },
        )
    tree.sound("hydrogen-data", f"{KITS}/nosheet/Kick.wav")
    tree.sound("lmms-common", "lmms/samples/drums/kick01.wav", seconds=0.6)
    tree.sound("lmms-common", "lmms/samples/beats/kick02.wav", seconds=0.6)
    table = RECIPE.build(tree.packages(), tmp_path / "out", None)
    check_frame(table)
    assert set(table["group"]) == {"One", "Two", "Three", "lmms-common"}
    assert table.groupby("label").size().to_dict() == {"closed_hat": 3, "kick": 7, "snare": 24}
    again = RECIPE.build(tree.packages(), tmp_path / "out", None)
    pd.testing.assert_frame_equal(table, again)


def test_recipe_says_what_it_is() -> None:
    assert RECIPE.domain in DOMAINS and RECIPE.caveat and RECIPE.licence
    assert RECIPE.packages == tuple(sorted(set(RECIPE.packages)))
    assert len(DRUMS_BY_NAME) == 9
