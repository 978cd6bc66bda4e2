"""What a mixture holds is drawn from (seed, part, number), within what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from ossicle.datasets.mixtures.plan import Pool, clip_text, draw_mixture
from ossicle.datasets.mixtures.settings import MixtureSettings
from ossicle.datasets.mixtures.sources import Clip
from ossicle.errors import DataError

RATE = 1000


def clip(name: str, group: str, size: int = RATE, *, active=None, onset=None, table=0) -> Clip:
    active = np.ones(-(-size * 20 // RATE), bool) if active is None else active
    offset = None if onset is None else onset + size / RATE
    return Clip(
        *(table, f"/d/{name}", name, onset, offset, group, group, "word", (), None, None, name),
        *(size, active),
    )


def pool(*, sizes=(300, 700, 1000, 2500), n_groups=5) -> Pool:
    clips = [clip(f"{g}{i}", f"g{g}", s) for g in range(n_groups) for i, s in enumerate(sizes)]
    return Pool(clips, 1)


@examples(deadline=None)
@given(
    st.integers(2, 5),
    st.sampled_from([None, 0.2, 1.0, 4.0]),
    st.sampled_from(["min", "max"]),
    st.booleans(),
    st.integers(0, 20),
    st.integers(0, 50),
)
def test_a_plan_keeps_what_was_asked_for(n_sources, duration, length, join, seed, number):
    join = join and duration is not None
    settings = MixtureSettings(
        **{"n_sources": n_sources, "duration_s": duration, "length": length, "join": join},
        **{"sample_rate": RATE, "level_db": (-7.0, 3.0), "seed": seed},
    )
    clips = pool()
    plan = draw_mixture(clips, settings, "valid", number)
    assert plan == draw_mixture(clips, settings, "valid", number)
    groups = [source.pieces[0].clip.group for source in plan.sources]
    assert len(set(groups)) == n_sources == len(groups)
    whole = [sum(p.clip.size for p in source.pieces) for source in plan.sources]
    if duration is not None:
        assert plan.size == duration * RATE
    else:
        assert plan.size == (min(whole) if length == "min" else max(whole))
    for position, source in enumerate(plan.sources):
        assert all(0 <= p.start < p.stop <= p.clip.size for p in source.pieces)
        assert len({p.clip.name for p in source.pieces}) == len(source.pieces)
        assert {p.clip.group for p in source.pieces} == {groups[position]}
        assert 0 <= source.at <= plan.size - source.length
        assert (-7 <= source.level_db <= 3) if position else source.level_db == 0
        if join:
            # All clips of a group are 4.5 s together; less than 10 ms more are not worth a clip.
            assert plan.size - 10 < source.length <= plan.size
        else:
            assert source.length == min(whole[position], plan.size)


def test_levels_and_choices_are_uniform():
    settings = MixtureSettings(sample_rate=RATE, level_db=(-5.0, 10.0))
    plans = [draw_mixture(pool(), settings, "train", number) for number in range(2000)]
    levels = np.array([plan.sources[1].level_db for plan in plans])
    assert stats.kstest(levels, stats.uniform(-5, 15).cdf).pvalue > 0.01
    pairs = [tuple(s.pieces[0].clip.group for s in plan.sources) for plan in plans]
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(counts) == 20
    assert stats.chisquare(counts).pvalue > 0.01
    names = [source.pieces[0].clip.name for plan in plans for source in plan.sources]
    assert stats.chisquare(np.unique(names, return_counts=True)[1]).pvalue > 0.01
    assert abs(np.corrcoef(levels[:-1], levels[1:])[0, 1]) < 0.07


def test_parts_seeds_and_numbers_draw_apart():
    def level(part="train", number=0, seed=0):
        settings = MixtureSettings(sample_rate=RATE, seed=seed)
        return draw_mixture(pool(), settings, part, number).sources[1].level_db

    drawn = {level(), level(part="test"), level(number=1), level(seed=1)}
    assert len(drawn) == 4


def test_a_cut_is_where_the_clip_sounds():
    # 10 s, of which only 6 to 7 s sound; blocks are 50 ms.
    active = np.zeros(200, bool)
    active[120:140] = True
    clips = [clip("long", "a", 10 * RATE, active=active), clip("short", "b", RATE)]
    settings = MixtureSettings(sample_rate=RATE, duration_s=1.0)
    starts = set()
    for number in range(200):
        plan = draw_mixture(Pool(clips, 1), settings, "train", number)
        (piece,) = next(s.pieces for s in plan.sources if s.pieces[0].clip.name == "long")
        heard = max(0, min(piece.stop, 7 * RATE) - max(piece.start, 6 * RATE))
        # Half of the fullest second, but for the part of a block that the place is moved by.
        assert heard >= 0.5 * RATE - 50
        starts.add(piece.start)
    assert len(starts) > 100
    assert min(starts) < 5.6 * RATE
    assert max(starts) > 6.4 * RATE


def test_zeros_are_at_a_drawn_place():
    settings = MixtureSettings(sample_rate=RATE, length="max")
    clips = [clip("long", "a", 3 * RATE), clip("short", "b", RATE)]
    places = []
    for number in range(400):
        plan = draw_mixture(Pool(clips, 1), settings, "train", number)
        short = next(s for s in plan.sources if s.pieces[0].clip.name == "short")
        places.append(short.at)
    assert stats.kstest(places, stats.uniform(0, 2 * RATE).cdf).pvalue > 0.01


def test_roles_have_one_clip_of_each_table_in_order():
    clips = [clip(f"s{i}", f"s{i}") for i in range(3)]
    clips += [clip(f"n{i}", f"n{i}", table=1) for i in range(3)]
    settings = MixtureSettings(sample_rate=RATE, n_sources=5)
    for number in range(20):
        plan = draw_mixture(Pool(clips, 2), settings, "test", number)
        assert [source.pieces[0].clip.table for source in plan.sources] == [0, 1]


def test_segments_of_one_file_are_not_mixed_with_each_other():
    clips = [clip("x.wav", "a", onset=float(i)) for i in range(5)]
    clips += [clip("x.wav", "b", onset=float(i)) for i in range(5, 10)]
    clips += [clip("y.wav", group, onset=float(i)) for i, group in enumerate("ab")]
    settings = MixtureSettings(sample_rate=RATE)
    for number in range(50):
        plan = draw_mixture(Pool(clips, 1), settings, "train", number)
        assert len({source.pieces[0].clip.path for source in plan.sources}) == 2


def test_a_table_says_where_a_source_was_cut_from():
    settings = MixtureSettings(sample_rate=RATE, duration_s=1.5, join=True)
    clips = [clip(f"{g}{i}", g, onset=2.0) for g in "ab" for i in range(2)]
    plan = draw_mixture(Pool(clips, 1), settings, "train", 0)
    names = [piece.clip.name for piece in plan.sources[0].pieces]
    text = clip_text(plan.sources[0], RATE)
    assert text == f"{names[0]} (2.0 to 3.0 s); {names[1]} (2.0 to 2.5 s)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level_db": (5.0, -5.0)}, "level 5, -5: give two numbers, the lower first"),
        ({"level_db": (-5.0, float("nan"))}, "level -5, nan: give two numbers"),
        ({"n_sources": 1}, "number of sources 1: choose 2 to 16"),
        ({"length": "mean"}, "length mean is not known; use min or max"),
        ({"join": True}, "give a duration too"),
        ({"unseen": 1.5}, "share of unseen groups 1.5: choose 0 to 0.9"),
        ({"shares": (0.0, 0.0, 0.0)}, "give three shares"),
        ({"suffix": ".mp3"}, "files can be written as .flac or .wav, not .mp3"),
        ({"use_split": True, "test_folds": ("1",)}, "not both"),
        ({"valid_folds": ("1",), "test_folds": ("1",)}, "fold 1 cannot be both"),
        ({"duration_s": float("inf")}, "duration inf: choose"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(DataError, match=message):
        MixtureSettings(**wrong)


def test_settings_take_lists_and_lone_names():
    settings = MixtureSettings(level_db=[0.0, 1.0], unseen="ada", test_folds=["1", "2"])
    assert settings.level_db == (0.0, 1.0)
    assert settings.unseen == ("ada",)
    assert settings.test_folds == ("1", "2")
