"""Recordings: the table, names, and how much is taken of what."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.corpus.package_list import CORPUS_PACKAGES, PLAYED, RECORDED
from ossicle.corpus.recordings import (
    LONGEST_ROW_S,
    WINDOW_S,
    chosen,
    described,
    fitting,
    parts,
    quotas,
    windows_of,
)


def test_no_package_is_one_of_the_suite() -> None:
    used = {name for recipe in RECIPES.values() for name in recipe.packages}
    assert len(used) > 100
    assert not used & set(CORPUS_PACKAGES)


def test_table() -> None:
    assert set(PLAYED) | set(RECORDED) == set(CORPUS_PACKAGES)
    assert not set(PLAYED) & set(RECORDED)
    for name, package in CORPUS_PACKAGES.items():
        assert len(package.sha256) == 64 and set(package.sha256) <= set("0123456789abcdef"), name
        assert package.licence and "non" not in package.licence.lower(), name
        assert package.version and package.megabytes >= 0 and package.architecture, name


@pytest.mark.parametrize(
    ("package", "inside", "what", "facets"),
    [
        ("zaz-data", "usr/share/zaz/sounds/door_open.wav", "effects", {"sound:door"}),
        ("zaz-data", "usr/share/zaz/sounds/x7.wav", "effects", set()),
        ("0ad-data", "usr/share/games/0ad/audio/music/Calm.ogg", "music", {"sound:music"}),
        ("asc-music", "usr/share/games/asc/a.ogg", "music", {"sound:music"}),
        (
            *("festvox-ru", "usr/share/festival/wav/ru_0001.wav", "speech"),
            {"sound:speech", "language:ru"},
        ),
        ("nexuiz-data", "usr/share/x/sound/announcer/male/begin.ogg", "speech", {"sound:speech"}),
        ("0ad-data", "usr/share/audio/fauna/Sheep1.ogg", "effects", {"sound:sheep"}),
    ],
)
def test_described(package: str, inside: str, what: str, facets: set[str]) -> None:
    kind, label = described(package, inside)
    assert kind == what
    assert set(label.split(";")) == {f"package:{package}"} | facets


@pytest.mark.parametrize("most", [1, 2, 5, 17, 40, 1000])
def test_quotas_are_as_even_as_can_be(most: int) -> None:
    available = [1, 3, 50, 2, 9, 50]
    given = quotas(available, most, np.random.default_rng(0))
    assert sum(given) == min(most, sum(available))
    assert all(0 <= g <= a for g, a in zip(given, available, strict=True))
    # who has fewer than another, by more than the one that does not come out even, has no more
    for g, a in zip(given, available, strict=True):
        assert g == a or g >= max(given) - 1


@pytest.mark.parametrize("seconds", [0.3, 3.9, 4.0, 60.0, 61.0, 300.7])
@pytest.mark.parametrize("windows", [1, 3, 60, 1000])
def test_parts(seconds: float, windows: int) -> None:
    spans = parts(seconds, windows, np.random.default_rng(0))
    if windows >= windows_of(seconds):
        if seconds <= LONGEST_ROW_S:
            assert len(spans) == 1 and np.isnan(spans[0]).all()
            return
        assert (spans[0][0], spans[-1][1]) == (0.0, seconds)
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert all(b - a <= LONGEST_ROW_S for a, b in spans)
        return
    assert len(spans) == windows
    assert all(b - a == pytest.approx(WINDOW_S) for a, b in spans)
    assert spans[0][0] >= 0 and spans[-1][1] <= seconds + 1e-3
    assert all(a[1] <= b[0] + 2e-3 for a, b in zip(spans, spans[1:], strict=False))
    # one in each cell
    assert all(i == int(a / (seconds / windows) + 1e-6) for i, (a, _) in enumerate(spans))


def files(lengths: dict[str, list[float]]) -> pd.DataFrame:
    rows = [
        (f"/{package}/{i}.wav", package, "1", "GPL-2", "effects", f"package:{package}", s)
        for package, own in lengths.items()
        for i, s in enumerate(own)
    ]
    columns = ["path", "package", "version", "licence", "kind", "label", "seconds"]
    return pd.DataFrame(rows, columns=columns)


LENGTHS = {"a": [100.0, 3.0, 40.0], "b": [0.5] * 30, "c": [8.0]}


@pytest.mark.parametrize("windows", [1, 5, 1000])
def test_chosen(windows: int) -> None:
    rows = chosen(files(LENGTHS), windows=windows)
    for package, own in rows.groupby("package"):
        whole = sum(LENGTHS[str(package)])
        assert own["seconds"].sum() <= min(whole, windows * WINDOW_S) + 1e-6
        assert (own["group"] == package).all()
    if windows == 1000:
        assert rows["seconds"].sum() == pytest.approx(sum(map(sum, LENGTHS.values())))


def test_what_is_chosen_of_a_package_does_not_depend_on_others() -> None:
    alone = chosen(files({"a": LENGTHS["a"]}), windows=5, seed=3)
    among = chosen(files(LENGTHS), windows=5, seed=3)
    pd.testing.assert_frame_equal(
        alone, among[among["package"] == "a"].reset_index(drop=True), check_like=True
    )
    other = chosen(files({"a": LENGTHS["a"]}), windows=5, seed=4)
    assert not alone["onset"].equals(other["onset"])


@pytest.mark.parametrize("most_s", [1.0, 10.0, 30.0, 60.0, 1e6])
def test_fitting_is_the_most_that_fits(most_s: float) -> None:
    even = files({"a": [100.0, 40.0], "c": [8.0], "d": [4.0] * 7})  # whole windows alone
    totals = [chosen(even, windows=w)["seconds"].sum() if w else 0.0 for w in range(41)]
    best = max(w for w, total in enumerate(totals) if total <= most_s)
    assert fitting(even, 40, most_s) == best
