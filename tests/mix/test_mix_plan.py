"""Plans: what they depend on, balance, overlap, and the table of labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as few
from hypothesis import strategies as st

from ossicle.errors import DataError
from ossicle.mix import EventPlan, MixSettings, ScapePlan, draw_scape
from ossicle.mix.plan import draw_scapes, label_rows
from ossicle.mix.sources import Clip, Sources


def clip(label: str, group: str, *stretches: tuple[int, int]) -> Clip:
    name = f"{label}/{group}.wav"
    return Clip(name, name, None, None, (label,), group, name, stretches or ((0, 8000),))


def sources(classes: int = 5, groups: int = 4, length: int = 8000) -> Sources:
    return Sources(
        tuple(
            clip(f"c{c}", f"c{c}g{g}", (100, 100 + length))
            for c in range(classes)
            for g in range(groups)
        )
    )


def plans(many=40, part="train", given_sources=None, **chosen):
    return list(draw_scapes(given_sources or sources(), MixSettings(**chosen), part, many))


def test_a_plan_depends_on_seed_part_and_number_alone():
    forty = plans(40)
    assert plans(7) == forty[:7]
    assert draw_scape(sources(), MixSettings(), "train", 23) == forty[23]
    assert len({plan.checksum() for plan in forty}) == 40
    assert plans(5, seed=1)[3] != forty[3]
    assert plans(5, part="test")[3].events != forty[3].events


def test_classes_come_equally_often():
    tally = Counter(e.labels[0] for plan in plans(400, max_overlap=9) for e in plan.events)
    assert max(tally.values()) - min(tally.values()) <= 8
    events = sum(tally.values())
    assert events == pytest.approx(360 * 3.5, rel=0.08)


def test_groups_come_equally_often_however_many_clips_they_have():
    many = [clip("a", "big", (0, 4000))._replace(name=f"{i}.wav") for i in range(50)]
    one = [clip("a", "small", (0, 4000))]
    drawn = [e for plan in plans(200, given_sources=Sources((*many, *one))) for e in plan.events]
    tally = Counter(e.group for e in drawn)
    assert 0.4 < tally["small"] / sum(tally.values()) < 0.6
    assert len({e.name for e in drawn}) > 45


def test_every_stretch_of_a_clip_is_used():
    own = Sources((clip("a", "g", (0, 4000), (8000, 12000), (20000, 30000)),))
    starts = {e.start for plan in plans(20, given_sources=own) for e in plan.events}
    assert starts == {0, 8000, 20000}


@pytest.mark.parametrize(("share", "many"), [(0.0, 100), (0.1, 100), (0.25, 80), (1.0, 20)])
def test_share_without_events(share, many):
    empty = [not plan.events for plan in plans(many, empty=share)]
    assert abs(sum(empty) - share * many) <= 1


def test_events_in_the_range_asked_for():
    tally = Counter(
        len(plan.events) + plan.left_out for plan in plans(300, events=(2, 4), empty=0.0)
    )
    assert set(tally) == {2, 3, 4}
    assert min(tally.values()) > 70


@few(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.tuples(st.integers(1, 3), st.integers(3, 12)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.floats(0.7, 1.0),
)
def test_properties(most, events, cut, seed, slow):
    chosen = MixSettings(
        max_overlap=most, events=events, cut_at_end=cut, seed=seed, speed=(slow, 1.2)
    )
    for number in range(3):
        plan = draw_scape(sources(length=30000), chosen, "valid", number)
        classes = np.zeros((5, plan.size), bool)
        for event in plan.events:
            assert 0 <= event.onset < event.offset <= plan.size
            assert chosen.snr_db[0] <= event.snr_db <= chosen.snr_db[1]
            assert 100 <= event.start < event.stop <= 30100
            assert slow - 1e-4 <= event.speed <= 1.2001
            length = round((event.stop - event.start) / event.speed)
            if cut:
                assert event.offset - event.onset == min(length, plan.size - event.onset)
                assert event.offset - event.onset >= 0.1 * chosen.sample_rate - 1
            else:
                assert event.offset - event.onset == length
            classes[int(event.labels[0][1:]), event.onset : event.offset] = True
        assert classes.sum(axis=0).max() <= most
        assert not plan.events or list(plan.events) == sorted(plan.events, key=lambda e: e.onset)


def test_events_that_run_past_the_end_only_where_asked():
    def cut(plan):
        return [e for e in plan.events if e.offset - e.onset < e.stop - e.start]

    long = sources(length=30000)
    assert not any(cut(plan) for plan in plans(100, given_sources=long))
    assert any(cut(plan) for plan in plans(100, given_sources=long, cut_at_end=True))


def test_long_stretches_are_cut_at_random_places():
    long = sources(length=160000)
    lengths, starts = [], []
    for plan in plans(100, given_sources=long, max_event_s=(1.0, 3.0)):
        lengths += [(e.stop - e.start) / 16000 for e in plan.events]
        starts += [e.start for e in plan.events]
    assert 1.0 <= min(lengths) < 1.2
    assert 2.8 < max(lengths) <= 3.0
    assert np.std(starts) > 20000


def event(label, onset, offset, snr_db=10.0, name="x.wav"):
    return EventPlan(
        clip=0, name=name, labels=(label,), group=name[0], start=0, stop=offset - onset,
        onset=onset, offset=offset, speed=1.0, snr_db=snr_db, direct_db=None, seed=0,
    )  # fmt: skip


def scape(*events):
    return ScapePlan(
        part="test", number=3, size=160000, level_db=-40.0, background=None, background_name="",
        place=0.0, color="pink", seed=0, t60_s=None, room=None, room_name="",
        events=tuple(sorted(events, key=lambda e: e.onset)), left_out=0,
    )  # fmt: skip


def test_events_of_one_class_that_overlap_are_one_row():
    plan = scape(
        event("dog", 16000, 32000, 5.0, "a.wav"),
        event("dog", 24000, 28000, 9.0, "b.wav"),
        event("cat", 30000, 40000),
        event("dog", 32000, 48000, 7.0, "a.wav"),
        event("dog", 48001, 50000, 8.0, "c.wav"),
    )
    rows = label_rows(plan, MixSettings())
    assert [(r["label"], r["onset"], r["offset"]) for r in rows] == [
        ("dog", 1.0, 3.0),
        ("cat", 1.875, 2.5),
        ("dog", pytest.approx(48001 / 16000, abs=1e-6), 3.125),
    ]
    assert rows[0]["snr_db"] == 9.0
    assert rows[0]["source"] == "a.wav;b.wav"
    assert rows[0]["source_group"] == "a;b"
    assert {r["file"] for r in rows} == {"test/soundscape_00003.wav"}
    assert {r["split"] for r in rows} == {"test"}


def test_labels_are_the_union_of_the_events():
    chosen = MixSettings(events=(8, 12), empty=0.0)
    for number in range(10):
        plan = draw_scape(sources(classes=2, length=20000), chosen, "train", number)
        wanted = np.zeros((2, plan.size + 1), bool)
        for e in plan.events:
            wanted[int(e.labels[0][1:]), e.onset : e.offset] = True
        said = np.zeros_like(wanted)
        for row in label_rows(plan, chosen):
            a, b = (round(row[key] * 16000) for key in ("onset", "offset"))
            # Rows of one class are apart: each sample is said once.
            assert not said[int(row["label"][1:]), a:b].any()
            said[int(row["label"][1:]), a:b] = True
        assert (said == wanted).all()


def test_a_soundscape_without_events_is_one_row_without_label():
    (row,) = label_rows(scape(), MixSettings())
    assert row["file"] == "test/soundscape_00003.wav"
    assert "label" not in row


def test_several_labels_of_a_clip_are_a_row_each():
    both = replace(event("dog", 0, 16000), labels=("cat", "dog"))
    rows = label_rows(scape(both), MixSettings())
    assert [(r["label"], r["onset"], r["offset"]) for r in rows] == [("cat", 0, 1), ("dog", 0, 1)]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"duration_s": 0.0}, "duration 0: choose 0.1"),
        ({"duration_s": float("nan")}, "duration nan"),
        ({"events": (0, 3)}, "events 0: choose 1"),
        ({"events": (5, 3)}, "events 5, 3: give two numbers, the lower first"),
        ({"snr_db": (6.0, float("inf"))}, "SNR inf"),
        ({"max_overlap": 0}, "max overlap 0"),
        ({"reverb": 1.5}, "share with reverberation 1.5: choose 0 to 1"),
        ({"empty": -0.1}, "share of empty"),
        ({"speed": (0.0, 1.0)}, "speed 0"),
        ({"max_event_s": (0.01, 3.0)}, "longest event 0.01"),
        ({"gap_s": -1.0}, "gap -1"),
        ({"sample_rate": 0}, "sample rate 0"),
        ({"seed": -1}, "seed -1"),
        ({"level_db": (-40.0, 3.0)}, "background level 3"),
    ],
)
def test_settings_out_of_range(chosen, message):
    with pytest.raises(DataError, match=message) as raised:
        MixSettings(**chosen)
    assert "\n" not in str(raised.value)
