"""Near-copies: candidates against a slow definition, and sounds that are or are not the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.corpus import near_copies
from ossicle.corpus.near_copies import Index, Stretch, confirmed, hear
from ossicle.fingerprint import HOP, MIN_VOTES, SAMPLE_RATE, Landmarks


def random_prints(rng: np.random.Generator, rows: int, hashes: int) -> list[Landmarks]:
    prints = []
    for _ in range(rows):
        n = int(rng.integers(0, 40))
        frames = np.sort(rng.integers(0, 40, n)).astype(np.int32)
        prints.append(Landmarks(rng.integers(0, hashes, n).astype(np.int32), frames))
    return prints


def slow_candidates(a: list[Landmarks], b: list[Landmarks]) -> dict[tuple[int, int], set[int]]:
    """Pair -> votes that its best shift may have: of steps of two frames, two adjoining together.

    Where steps begin depends on the implementation, so that both ways to pair frames are counted.
    """
    found: dict[tuple[int, int], set[int]] = {}
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            shifts = [
                int(f) - int(g)
                for h, f in zip(p.hashes, p.frames, strict=True)
                for k, g in zip(q.hashes, q.frames, strict=True)
                if h == k
            ]
            best = set()
            for phase in (0, 1):
                steps = Counter((shift + phase) // 2 for shift in shifts)
                best.add(max((n + steps.get(s + 1, 0) for s, n in steps.items()), default=0))
            if max(best) >= MIN_VOTES:
                found[i, j] = best
    return found


def test_candidates_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = random_prints(rng, 30, 6), random_prints(rng, 20, 6)
    # one that is in the other, 7 frames later
    shifted = Landmarks(b[3].hashes, b[3].frames + np.int32(7))
    a.append(shifted)
    slow = slow_candidates(a, b)
    found = {(c.a, c.b): c for c in Index(b).candidates(a)}
    sure = {pair for pair, votes in slow.items() if min(votes) >= MIN_VOTES}
    assert len(sure) > 10
    assert sure <= set(found) <= set(slow)
    assert all(found[pair].votes in slow[pair] for pair in sure)
    assert found[30, 3].votes >= len(shifted.hashes)
    assert found[30, 3].shift_s == pytest.approx(7 * HOP / SAMPLE_RATE, abs=2 * HOP / SAMPLE_RATE)


def test_candidates_do_not_depend_on_how_many_are_looked_up_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    a, b = random_prints(rng, 30, 6), random_prints(rng, 20, 6)
    whole = sorted(Index(b).candidates(a))
    monkeypatch.setattr(near_copies, "_MEETINGS", 50)
    assert sorted(Index(b).candidates(a)) == whole
    assert whole


def test_crowded_hashes_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = Landmarks(np.full(20, 5, np.int32), np.arange(20, dtype=np.int32))
    assert list(Index([prints]).candidates([prints]))
    monkeypatch.setattr(near_copies, "CROWDED", 19)
    assert not list(Index([prints]).candidates([prints]))


def test_a_pair_that_shares_little_is_none() -> None:
    few = Landmarks(np.arange(10, dtype=np.int32), np.arange(10, dtype=np.int32))
    rest = np.arange(100, 390, dtype=np.int32)
    many = Landmarks(np.concatenate([few.hashes, rest]), np.concatenate([few.frames, rest]))
    other = Landmarks(np.concatenate([few.hashes, rest + 300]), many.frames)
    more = Landmarks(np.append(other.hashes, rest + 600), np.append(other.frames, rest + 600))
    # 10 of 300, of 300 (3.3 %), of 10
    assert [c.votes for c in Index([many]).candidates([other, few])] == [10, 10]
    longer = Landmarks(np.append(many.hashes, rest + 900), np.append(many.frames, rest + 900))
    assert not list(Index([longer]).candidates([more]))  # 10 of 590


def test_empty() -> None:
    assert not list(Index([]).candidates([Landmarks.none()]))
    assert not list(Index([Landmarks.none()]).candidates([]))


def song(seed: int, seconds: float, rate: int) -> np.ndarray:
    """Notes that are drawn, each a decaying tone with overtones."""
    rng = np.random.default_rng(seed)
    out = np.zeros(round(seconds * rate))
    for start in np.arange(0.0, seconds, 0.11):
        first = round(start * rate)
        t = np.arange(min(rate // 3, len(out) - first)) / rate
        f = rng.uniform(150, 1500)
        tone = sum(np.sin(2 * np.pi * f * k * t) / k for k in (1, 2, 3))
        out[first : first + len(t)] += rng.uniform(0.3, 1) * np.exp(-9 * t) * tone
    return 0.3 * out / np.abs(out).max()


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, Stretch]:
    """A song; 4 s of it softer, at another rate, lossy; another song."""
    one, other = song(0, 12, 22050), song(1, 12, 22050)
    soundfile.write(tmp_path / "one.wav", one, 22050)
    soundfile.write(tmp_path / "other.wav", other, 22050)
    cut = 0.25 * song(0, 12, 44100)[5 * 44100 : 9 * 44100]
    soundfile.write(tmp_path / "cut.ogg", cut, 44100)
    return {path.stem: Stretch(str(path)) for path in sorted(tmp_path.iterdir())}


def test_a_lossy_cut_is_found_and_another_song_is_not(sounds: dict[str, Stretch]) -> None:
    known = [sounds["other"], sounds["one"]]
    heard = [hear(stretch) for stretch in known]
    index = Index([one.prints for one in heard])
    cut = hear(sounds["cut"])
    assert cut.seconds == pytest.approx(4, abs=0.01)
    (same,) = confirmed(
        index.candidates([cut.prints]),
        [sounds["cut"]],
        known,
        [4.0],
        [one.seconds for one in heard],
    )
    assert (same.a, same.b, same.throughout) == (0, 1, True)
    assert same.overlap_s == pytest.approx(4, abs=0.1)
    alone = Index([heard[0].prints])
    assert not list(
        confirmed(alone.candidates([cut.prints]), [sounds["cut"]], known, [4.0], [12.0])
    )


def test_hear(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.full(8000, 1e-4), 8000)
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 24000), 8000)
    assert hear(Stretch(str(tmp_path / "quiet.wav"))).reason == "is silent"
    assert "not an audio file" in hear(Stretch(str(tmp_path / "text.wav"))).reason
    part = hear(Stretch.of(tmp_path / "noise.wav", 1.0, 2.5))
    assert (part.reason, part.seconds) == ("", 1.5)
    assert hear(Stretch.of(tmp_path / "noise.wav", float("nan"), float("nan"))).seconds == 3
