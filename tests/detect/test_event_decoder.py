"""Witnesses: the definitions frame by frame, scipy.ndimage.median_filter, tracemalloc."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter

from ossicle.detect.decoder import Event, EventDecoder, decode
from ossicle.detect.median import RunningMedian, filtered
from ossicle.detect.rules import ClassRule, Rules
from ossicle.errors import DataError
from ossicle.events import FrameScores

LEVELS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def slow_median(scores: list[float], edges: list[float], median_s: float) -> list[float]:
    """The definition: frame by frame over a mirrored recording, in whole nanoseconds."""
    n = len(scores)
    ticks = [round(edge * 10**9) for edge in edges]
    widths = [b - a for a, b in zip(ticks[:-1], ticks[1:], strict=True)]
    twice = round(median_s * 10**9) + 2000  # twice half a window and a microsecond
    result = []
    for i in range(n):
        time = {scores[i]: widths[i]}
        for way in (1, -1):
            position, distance = i, widths[i]  # twice: from the frame's centre to the next frame
            while True:
                position += way
                image = position % (2 * n)
                image = image if image < n else 2 * n - 1 - image
                if distance + widths[image] > twice:
                    break
                time[scores[image]] = time.get(scores[image], 0) + widths[image]
                distance += 2 * widths[image]
        whole = sum(time.values())
        reached = (v for v in time if 2 * sum(w for s, w in time.items() if s >= v) > whole)
        result.append(max(reached))
    return result


def slow_events(
    scores: np.ndarray, edges: np.ndarray, classes: list[str], rules: Rules
) -> list[Event]:
    """The definition of events: whole file, one frame after the other."""
    events = []
    times = [float(edge) for edge in edges]
    for label, row in zip(classes, scores, strict=True):
        rule = rules[label]
        raw = [0.0 if np.isnan(s) else float(s) for s in row]
        smooth = slow_median(raw, times, rule.median_s) if rule.median_s else raw
        high = float(np.float32(rule.threshold))
        low = high if rule.low is None else float(np.float32(rule.low))
        runs, run = [], []
        for i, score in enumerate([*smooth, -1.0]):
            if score >= low:
                run.append(i)
            elif run:
                if any(smooth[j] >= high for j in run):
                    runs.append((run[0], run[-1]))
                run = []
        joined: list[tuple[int, int]] = []
        for first, last in runs:
            if joined and times[first] - times[joined[-1][1] + 1] < rule.min_gap_s - 1e-6:
                joined[-1] = (joined[-1][0], last)
            else:
                joined.append((first, last))
        for first, last in joined:
            onset, offset = times[first], times[last + 1]
            if offset - onset < rule.min_duration_s - 1e-6:
                continue
            inside = range(first, last + 1)
            if rules.score == "max":
                score = max(raw[j] for j in inside)
                score = max(score, high) if rule.median_s else score
            else:
                area = sum(raw[j] * (times[j + 1] - times[j]) for j in inside)
                score = area / (offset - onset)
            events.append(Event(onset, offset, label, score))
    return sorted(events, key=lambda e: (e.onset, e.offset, e.label))


@st.composite
def recordings(draw, equal: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(K, T) scores of few values, so that levels are met exactly and runs are long; (T + 1,)."""
    n_classes, n = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    values = st.sampled_from([*LEVELS, float("nan")])
    rows = []
    for _ in range(n_classes):
        row: list[float] = []
        while len(row) < n:
            row += [draw(values)] * draw(st.integers(1, 6))
        rows.append(row[:n])
    start = draw(st.sampled_from([0.0, 0.25, 86399.99]))
    if draw(st.booleans()) if equal is None else equal:
        edges = start + np.arange(n + 1) * draw(st.sampled_from([0.01, 0.02, 1 / 3, 0.5]))
    else:
        widths = draw(st.lists(st.sampled_from([0.04, 0.1, 0.46]), min_size=n, max_size=n))
        edges = start + np.concatenate([[0.0], np.cumsum(widths)])
    return np.array(rows, np.float32), edges


@st.composite
def rules_for(draw, n_classes: int) -> Rules:
    rules = {}
    for k in range(n_classes):
        threshold = draw(st.sampled_from(LEVELS))
        low = draw(st.none() | st.sampled_from([v for v in LEVELS if v <= threshold]))
        lengths = st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.3, 0.5, 1.0, 2.5])
        rules[f"c{k}"] = ClassRule(threshold, low, draw(lengths), draw(lengths), draw(lengths))
    return Rules(rules, draw(st.sampled_from(["max", "mean"])))


def same(events: list[Event], expected: list[Event]) -> None:
    """Times and labels bit for bit; the mean is a sum in another order."""
    assert [e[:3] for e in events] == [e[:3] for e in expected]
    np.testing.assert_allclose([e.score for e in events], [e.score for e in expected], atol=2e-7)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_events_are_those_of_the_definition(data):
    scores, edges = data.draw(recordings())
    rules = data.draw(rules_for(len(scores)))
    events = decode(FrameScores(scores, edges), rules.classes, rules)
    same(events, slow_events(scores, edges, list(rules.classes), rules))


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_cuts_between_pushes_change_no_bit(data):
    scores, edges = data.draw(recordings())
    rules = data.draw(rules_for(len(scores)))
    n = scores.shape[1]
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=12)))
    decoder, events, late = EventDecoder(rules.classes, rules), [], []
    for a, b in zip([0, *cuts], [*cuts, n], strict=True):
        given_now = decoder.push(edges[a : b + 1], scores[:, a:b])
        late += [edges[b] - event.offset for event in given_now]
        events += given_now
    assert all(wait >= 0 for wait in late)
    events += decoder.finish()
    whole = decode(FrameScores(scores, edges), rules.classes, rules)
    assert sorted(events, key=lambda e: (e.onset, e.offset, e.label)) == whole


@settings(max_examples=150, deadline=None)
@given(recordings(), st.sampled_from([0.02, 0.05, 0.1, 0.3, 0.5, 1.0, 3.0]))
def test_median_is_that_of_the_definition(recording, median_s):
    scores, edges = recording
    plain = np.nan_to_num(scores)
    result = filtered(FrameScores(scores, edges), median_s)
    wanted = [
        slow_median(list(map(float, row)), list(map(float, edges)), median_s) for row in plain
    ]
    np.testing.assert_array_equal(result.scores, np.array(wanted, np.float32))
    # And what the stream compares is the same number, whichever level it is compared with.
    for level in (0.1, 0.5, 1.0):
        k = len(scores)
        running = RunningMedian(np.full(k, median_s), np.full((1, k), level))
        reached = [running.push(edges, scores).reached, running.finish().reached]
        np.testing.assert_array_equal(
            np.concatenate(reached, axis=2)[0], result.scores >= np.float32(level)
        )


@pytest.mark.parametrize("n", [1, 7, 26, 500])
@pytest.mark.parametrize(("median_s", "size"), [(0.02, 1), (0.04, 3), (0.1, 5), (0.5, 25), (1, 51)])
def test_equal_frames_are_filtered_as_by_scipy(n, median_s, size):
    scores = np.random.default_rng(n).random((2, n), np.float32)
    frames = FrameScores(scores, 7.0 + np.arange(n + 1) * 0.02)
    # Longer windows scipy 1.17 gets wrong in places: numpy puts the mirror images there.
    wide = np.pad(scores, ((0, 0), (size // 2, size // 2)), mode="symmetric")
    wanted = np.median(sliding_window_view(wide, size, axis=1), axis=2)
    if size <= n:
        by_scipy = [median_filter(row, size=size, mode="reflect") for row in scores]
        np.testing.assert_array_equal(wanted, by_scipy)
    np.testing.assert_array_equal(filtered(frames, median_s).scores, wanted)
    level = np.full((1, 2), 0.5)
    running = RunningMedian(np.full(2, median_s), level)
    parts = [running.push(frames.edges, scores), running.finish()]
    reached = np.concatenate([part.reached for part in parts], axis=2)
    np.testing.assert_array_equal(reached[0], wanted >= 0.5)
    np.testing.assert_array_equal(np.concatenate([p.scores for p in parts], axis=1), scores)


def test_the_end_is_mirrored_past_a_wide_frame():
    """Two narrow frames are less than half a window; the wide one lies out of their windows."""
    scores = np.array([[0.0, 1.0, 0.0]], np.float32)
    edges = np.array([0.0, 0.46, 0.5, 0.54])
    np.testing.assert_array_equal(filtered(FrameScores(scores, edges), 0.3).scores, [[0, 0, 0]])
    running = RunningMedian(np.array([0.3]), np.array([[0.5]]))
    parts = [running.push(edges[i : i + 2], scores[:, i : i + 1]) for i in range(3)]
    reached = np.concatenate([part.reached for part in [*parts, running.finish()]], axis=2)
    np.testing.assert_array_equal(reached[0], [[False, False, False]])


@pytest.mark.parametrize("hop", [1 / 3, 512 / 22050, 0.0199999])
def test_rounded_edges_are_of_equal_frames_still(hop):
    """Five frames are as far from one another as the window is wide, but for rounding."""
    scores = np.random.default_rng(0).random((1, 300), np.float32)
    wanted = median_filter(scores[0], size=5)
    result = filtered(FrameScores(scores, np.arange(301) * hop), 4 * hop)
    np.testing.assert_array_equal(result.scores[0], wanted)
    running = RunningMedian(np.array([4 * hop]), np.array([[0.5]]))
    parts = [running.push(np.arange(301) * hop, scores), running.finish()]
    reached = np.concatenate([part.reached for part in parts], axis=2)
    np.testing.assert_array_equal(reached[0, 0], wanted >= 0.5)


def one(scores: list[float], hop: float = 0.1, score: str = "max", **values) -> list[tuple]:
    """Events of one class as (onset, offset, score), rounded."""
    frames = FrameScores(np.array([scores], np.float32), np.arange(len(scores) + 1) * hop)
    rules = Rules.default(["a"], score=score, **values)
    return [(round(e.onset, 6), round(e.offset, 6), round(e.score, 6))
            for e in decode(frames, ["a"], rules)]  # fmt: skip


def test_each_setting_by_hand():
    scores = [0.1, 0.4, 0.6, 0.4, 0.1, 0.6, 0.1, 0.1, 0.4, 0.1]
    assert one(scores) == [(0.2, 0.3, 0.6), (0.5, 0.6, 0.6)]
    assert one(scores, low=0.4) == [(0.1, 0.4, 0.6), (0.5, 0.6, 0.6)]  # 0.8 s never reaches 0.5
    # The gap of 0.1 s is closed by more than that, the one of 0.2 s before 0.5 s as well.
    assert one(scores, low=0.4, min_gap_s=0.1) == [(0.1, 0.4, 0.6), (0.5, 0.6, 0.6)]
    assert one(scores, low=0.4, min_gap_s=0.11) == [(0.1, 0.6, 0.6)]
    assert one(scores, min_gap_s=0.2) == [(0.2, 0.3, 0.6), (0.5, 0.6, 0.6)]
    assert one(scores, min_gap_s=0.21) == [(0.2, 0.6, 0.6)]
    assert one(scores, min_duration_s=0.1) == [(0.2, 0.3, 0.6), (0.5, 0.6, 0.6)]
    assert one(scores, min_duration_s=0.11) == []
    # Gaps are closed first.
    assert one(scores, min_gap_s=0.21, min_duration_s=0.4) == [(0.2, 0.6, 0.6)]
    assert one(scores, low=0.4, score="mean") == [(0.1, 0.4, 0.466667), (0.5, 0.6, 0.6)]
    assert one(scores, min_gap_s=0.21, score="mean") == [(0.2, 0.6, 0.425)]
    # A frame by itself is gone under a median of three, and what the filter joins has a score.
    assert one(scores, median_s=0.3) == []
    assert one([0.9, 0.9, 0.1, 0.9, 0.9], median_s=0.3) == [(0.0, 0.5, 0.9)]
    assert one([0.1, 0.1, 0.9, 0.2, 0.9, 0.1, 0.1], median_s=0.3) == [(0.3, 0.4, 0.5)]


def test_nan_is_nothing_to_hear():
    nan = float("nan")
    assert one([nan, 0.9, nan, 0.9, nan]) == [(0.1, 0.2, 0.9), (0.3, 0.4, 0.9)]
    assert one([nan, nan], threshold=0.0) == [(0.0, 0.2, 0.0)]
    assert one([0.9, nan, nan, 0.9], min_gap_s=0.5, score="mean") == [(0.0, 0.4, 0.45)]


def test_a_score_that_is_the_threshold_reaches_it():
    # 0.7 is above, its float32 below the number 0.7 of a rule.
    for value in (0.1, 0.3, 0.7, 0.9):
        assert one([value], threshold=value, low=value) == [(0.0, 0.1, value)]


def test_times_of_a_long_night_are_the_edges_bit_for_bit():
    edges = np.arange(8_640_001) * 0.01
    scores = np.zeros((1, 8_640_000), np.float32)
    scores[0, 8_639_000:] = 1
    scores[0, 123_457:123_460] = 0.8
    rules = Rules.default(["a"], median_s=0.03, min_gap_s=0.2, min_duration_s=0.03)
    assert decode(FrameScores(scores, edges), ["a"], rules) == [
        Event(edges[123_457], edges[123_460], "a", float(np.float32(0.8))),
        Event(edges[8_639_000], edges[-1], "a", 1.0),
    ]


@pytest.mark.parametrize(("score", "median_s"), [("max", 0.5), ("mean", 0.5), ("max", 0.003)])
def test_memory_does_not_grow_with_the_recording(score, median_s):
    """Above low and below threshold all along, then at last an event: nothing may be kept.

    The last filter is shorter than a frame, which no window need wait for then.
    """
    rules = Rules.default(
        ["a", "b"], threshold=0.9, low=0.3, median_s=median_s, min_gap_s=30, score=score
    )
    part = np.full((2, 1000), 0.5, np.float32)

    def peak(n_pushes: int) -> tuple[int, list[Event]]:
        decoder = EventDecoder(["a", "b"], rules)
        edges = np.arange(1001) * 0.01
        tracemalloc.start()
        for i in range(n_pushes):
            assert decoder.push((np.arange(1001) + 1000 * i) * 0.01, part) == []
        edges = (np.arange(1001) + 1000 * n_pushes) * 0.01
        events = decoder.push(edges, part * 2) + decoder.finish()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size, events

    (short, _), (long, events) = peak(20), peak(400)
    assert long < short + 380_000  # half a byte for each frame and class that came more
    assert [(e.onset, e.offset, e.label) for e in events] == [
        (0.0, 401_000 * 0.01, "a"),
        (0.0, 401_000 * 0.01, "b"),
    ]
    mean = (0.5 * 400 + 1.0) / 401
    assert events[0].score == pytest.approx(1.0 if score == "max" else mean, abs=1e-9)


def test_an_event_comes_as_soon_as_nothing_can_change_it():
    rules = Rules.default(["a"], min_gap_s=0.25)
    decoder = EventDecoder(["a"], rules)
    edges = np.arange(12) * 0.1
    given = [
        len(decoder.push(edges[i : i + 2], np.array([[float(i == 2)]], np.float32)))
        for i in range(10)
    ]
    # Over at 0.3 s, and what begins at 0.55 s or later is another event: known with frame 5.
    assert given == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_peak_in_a_closed_gap_counts_however_the_frames_come():
    """The filter takes out the 0.9, so that it is in the gap; the event is from 0 to 1 s."""
    scores = np.array([[0.6, 0.6, 0.6, 0.1, 0.9, 0.1, 0.1, 0.6, 0.7, 0.6]], np.float32)
    edges = np.arange(11) * 0.1
    rules = Rules.default(["a"], median_s=0.3, min_gap_s=0.5)
    decoder, events = EventDecoder(["a"], rules), []
    for i in range(10):
        events += decoder.push(edges[i : i + 2], scores[:, i : i + 1])
    events += decoder.finish()
    assert events == [Event(0.0, edges[10], "a", float(np.float32(0.9)))]
    assert events == decode(FrameScores(scores, edges), ["a"], rules)


def test_many_classes_in_small_pushes_equal_one_push():
    generator = np.random.default_rng(0)
    scores = generator.random((60, 400)).astype(np.float32) ** 4
    edges = np.arange(401) * 0.5
    classes = [f"c{k}" for k in range(60)]
    rules = Rules(
        {
            label: ClassRule(0.6, 0.3, *generator.choice([0.0, 0.5, 1.5, 2.5], 3))
            for label in classes
        }
    )
    decoder, events = EventDecoder(classes, rules), []
    for i in range(400):
        events += decoder.push(edges[i : i + 2], scores[:, i : i + 1])
    events += decoder.finish()
    same(sorted(events), slow_events(scores, edges, classes, rules))
    assert len(events) > 500


def test_what_does_not_fit_is_named():
    rules = Rules.default(["a", "b"])
    with pytest.raises(DataError, match="none for 'c'"):
        EventDecoder(["a", "c"], rules)
    decoder = EventDecoder(["a", "b"], rules)
    with pytest.raises(DataError, match=r"\(2, 3\), not \(2, 4\)"):
        decoder.push(np.arange(4.0), np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"\(2, 3\), not \(3, 3\)"):
        decoder.push(np.arange(4.0), np.zeros((3, 3)))
    for edges in ([0.0, 0.0], [1.0, 0.5], [0.0, np.nan], [0.0, np.inf]):
        with pytest.raises(DataError, match="later than the one before"):
            decoder.push(np.array(edges), np.zeros((2, 1)))
    decoder.push(np.array([0.0, 1.0]), np.zeros((2, 1)))
    with pytest.raises(DataError, match="do not follow on"):
        decoder.push(np.array([1.5, 2.0]), np.zeros((2, 1)))
    decoder.finish()
    with pytest.raises(DataError, match="finished"):
        decoder.push(np.array([1.0, 2.0]), np.zeros((2, 1)))
    assert EventDecoder(["a"], rules).finish() == []
    assert decode(FrameScores(np.zeros((2, 0)), np.zeros(1)), ["a", "b"], rules) == []
