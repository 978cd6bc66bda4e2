"""The page of detections: verdicts, counts, what it carries, hostile names, and a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import typer
from PIL import Image
from typer.testing import CliRunner

from ossicle.cli_picture import picture
from ossicle.errors import DataError, OssicleError
from ossicle.events import FrameScores, event_table
from ossicle.metrics.events.collar import event_based
from ossicle.report import detections
from ossicle.report.detection_activity import activity, started, union
from ossicle.report.detection_matches import judge, verdict_counts
from ossicle.report.detection_media import AROUND_S, WHOLE_S, wanted
from ossicle.report.detection_tables import percent, sounding
from ossicle.report.detections import write_detection_report

RATE = 16000
CLASSES = ["bird", "frog", "rain"]
HOSTILE = "</script><script>alert(1)</script> \"Größe\" <b>&amp; a:b, \u2028 'x' ${1} {{2}}"
PITCH = {"bird": 3000.0, "frog": 500.0, "rain": 1500.0}


def table(*rows: tuple[Any, ...]) -> pd.DataFrame:
    names = ("file", "onset", "offset", "label", "score")
    return event_table([dict(zip(names, row, strict=False)) for row in rows])


def random_tables(seed: int, n: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A reference, and an estimate near it, with events added and lost."""
    rng = np.random.default_rng(seed)
    true, found = [], []
    for _ in range(n):
        file, label = f"{rng.integers(4)}.wav", CLASSES[rng.integers(3)]
        onset = round(float(rng.uniform(0, 20)), 3)
        offset = round(onset + float(rng.uniform(0.1, 3)), 3)
        true.append((file, onset, offset, label))
        if rng.random() < 0.8:
            shift, end = rng.normal(0, 0.15, 2)
            begin = max(0.0, onset + shift)
            found.append((file, begin, max(begin, offset + end), label, rng.random()))
    return table(*true), table(*found, ("0.wav", 1.0, 2.0, "rain", 0.5))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """short.wav, 6 s, and long.wav, 90 s: tones of the class's pitch where EVENTS has events."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, seconds in (("short.wav", 6), ("long.wav", 90)):
        samples = 0.001 * np.random.default_rng(0).standard_normal(seconds * RATE)
        for row in EVENTS[EVENTS["file"] == name].itertuples():
            t = np.arange(round(row.onset * RATE), round(row.offset * RATE))
            samples[t] += 0.4 * np.sin(2 * np.pi * PITCH[row.label] * t / RATE)
        soundfile.write(folder / name, samples, RATE)
    return folder


EVENTS = table(
    ("short.wav", 1.0, 2.0, "bird", 0.9),
    ("short.wav", 4.0, 4.5, "frog", 0.6),
    ("long.wav", 10.0, 11.0, "bird", 0.95),
    ("long.wav", 40.0, 42.0, "rain", 0.55),
    ("long.wav", 41.0, 41.5, "frog", 0.8),
    ("long.wav", 70.0, 85.0, "rain", 0.7),
)
REFERENCE = table(
    ("short.wav", 1.05, 2.0, "bird"),
    ("long.wav", 10.0, 11.6, "bird"),
    ("long.wav", 40.0, 42.0, "rain"),
    ("long.wav", 60.0, 62.0, "frog"),
)
DURATIONS = {"short.wav": 6.0, "long.wav": 90.0}


def frame_scores(seconds: float) -> FrameScores:
    edges = np.arange(0, seconds + 0.25, 0.5)
    scores = np.tile(np.array([[0.2], [0.4], [0.8]], np.float32), len(edges) - 1)
    return FrameScores(scores, edges)


def write(out: Path, **change: Any) -> Path:
    given: dict[str, Any] = {
        "files": list(DURATIONS),
        "events": EVENTS,
        "classes": CLASSES,
        "durations": DURATIONS,
        "parameters": {"window_s": 1.0, "rules": {"bird": {"threshold": 0.5}}},
    }
    return write_detection_report(out, **{**given, **change})


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, Any] = {}
        self._inside = ""
        self.feed(self.html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if dict(attrs).get("id") == "detections":
            self._inside = "data"

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, text: str) -> None:
        if self._inside == "data":
            self.data = json.loads(text)
        elif self._inside not in ("script", "style"):
            self.texts.append(text)


# Verdicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_verdicts_count_as_the_score_does(seed: int) -> None:
    true, found = random_tables(seed)
    mixed = found.sample(frac=1, random_state=seed)  # the order of rows means nothing
    counts = verdict_counts(judge(mixed, true), list(mixed["label"]), list(true["label"]))
    score = event_based(true, found, classes=CLASSES)["per_class"]
    for name in CLASSES:
        row = score[name]
        assert counts.loc[name].tolist() == [row["hits"], row["misses"], row["alarms"]]


def test_verdicts_stand_by_their_rows() -> None:
    verdicts = judge(EVENTS, REFERENCE)
    # The long bird ends 0.6 s early, which is more than 20 % of its 1.6 s: its times are off.
    assert EVENTS["label"].tolist() == ["bird", "frog", "bird", "rain", "frog", "rain"]
    assert verdicts.right.tolist() == [True, False, False, True, False, False]
    assert verdicts.hit.tolist() == [True, False, True, False]
    assert verdicts.found_off.tolist() == [False, False, True, False, False, False]
    assert verdicts.missed_off.tolist() == [False, True, False, False]
    lenient = judge(EVENTS, REFERENCE, onset_only=True)
    assert lenient.hit.tolist() == [True, True, True, False]


def test_nothing_on_either_side() -> None:
    assert not judge(EVENTS, REFERENCE.iloc[:0]).right.any()
    assert not judge(EVENTS.iloc[:0], REFERENCE).hit.any()


# Counts ------------------------------------------------------------------------------------------


def test_overlapping_events_of_a_class_count_once() -> None:
    rng = np.random.default_rng(0)
    rows = []
    raster = np.zeros((2, 3, 500), bool)
    for _ in range(80):
        f, k, a = rng.integers(2), rng.integers(3), rng.integers(0, 480)
        b = a + rng.integers(1, 20)
        raster[f, k, a:b] = True
        rows.append((f"{f}.wav", a / 10, b / 10, CLASSES[k]))
    seconds = sounding(table(*rows))
    for k, name in enumerate(CLASSES):
        assert seconds[name] == pytest.approx(raster[:, k].sum() / 10)


def test_union_of_nothing() -> None:
    nothing = np.zeros(0)
    assert all(len(part) == 0 for part in union(nothing, nothing, nothing, nothing))


def test_activity_over_the_recording_is_what_a_raster_says() -> None:
    rng = np.random.default_rng(1)
    lengths = {"a.wav": 60.0, "b.wav": 37.0}
    raster = np.zeros((2, 3, 600), bool)
    rows = []
    for _ in range(50):
        f, k = rng.integers(2), rng.integers(3)
        a = int(rng.integers(0, 300 if f else 550))
        b = a + int(rng.integers(1, 50))
        raster[f, k, a:b] = True
        rows.append((list(lengths)[f], a / 10, b / 10, CLASSES[k]))
    (made,) = activity(table(*rows), CLASSES, lengths)
    assert made.shares.shape == (3, 30) and made.columns[:2] == ["0:00", "0:02"]
    for w in range(30):
        there = min(2.0, 60 - 2 * w) + max(0.0, min(2.0, 37 - 2 * w))
        sounding_s = raster[:, :, 20 * w : 20 * w + 20].sum(axis=(0, 2)) / 10
        np.testing.assert_allclose(made.shares[:, w], sounding_s / there, atol=1e-9)
        begun = [sum(2 * w <= r[1] < 2 * w + 2 and r[3] == c for r in rows) for c in CLASSES]
        assert made.counts[:, w].tolist() == begun


def test_activity_over_the_day() -> None:
    """Two nights from 23:30 for an hour each; a bird from 23:50 to 0:10 in the second."""
    lengths = {"x/A_20240511_233000.wav": 3600.0, "x/A_20240512_233000.wav": 3600.0}
    some = table((list(lengths)[1], 1200.0, 2400.0, "bird"))
    day, dates = activity(some, ["bird"], lengths)
    assert day.shares.shape == (1, 24) and np.isnan(day.shares[0, 1:23]).all()
    # 10 of the 60 minutes recorded in either hour.
    assert day.shares[0, [23, 0]] == pytest.approx([1 / 6, 1 / 6])
    assert day.counts[0, [23, 0]].tolist() == [1, 0]
    assert dates.columns == ["05-11", "05-12", "05-13"]
    assert dates.shares[0] == pytest.approx([0, 10 / 60, 10 / 30])
    # One recording without a time: no hours can be told.
    (plain,) = activity(some, ["bird"], {**lengths, "b.wav": 10.0})
    assert plain.title.startswith("By time since")


@pytest.mark.parametrize(
    ("name", "wanted_time"),
    [
        ("20240511_043000.WAV", datetime(2024, 5, 11, 4, 30)),
        ("deep/S4A01234_20240511_043015_dawn.wav", datetime(2024, 5, 11, 4, 30, 15)),
        ("2024-05-11T04-30-00.flac", datetime(2024, 5, 11, 4, 30)),
        ("20241311_043000.wav", None),
        ("120240511_043000.wav", None),
        ("rec_12.wav", None),
    ],
)
def test_when_a_recording_began(name: str, wanted_time: datetime | None) -> None:
    assert started(name) == wanted_time


def test_shares_in_percent() -> None:
    texts = [percent(x, 100) for x in (0, 0.0001, 0.123, 5, 50)]
    assert [t.replace("\u00a0", " ") for t in texts] == [
        *("0 %", "below 0.01 %", "0.12 %", "5 %", "50 %")
    ]
    assert percent(1, 0) == "–"


# What is carried ---------------------------------------------------------------------------------


def marked(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["label", "kind", "score", "offset"]).assign(onset=0.0)


def test_the_surest_and_the_least_sure_of_each_class_come_first() -> None:
    some = marked(
        *(("bird", "found", s, 1.0) for s in (0.9, 0.8, 0.7, 0.6)), ("frog", "found", 0.5, 1)
    )
    order = wanted(some)
    assert order[:2] == [0, 4]  # the surest of both classes
    assert order[2:] == [3, 1, 2]


def test_errors_are_wanted_before_hits() -> None:
    some = marked(
        ("bird", "hit", 0.9, 1), ("bird", "hit", 0.5, 1), ("bird", "alarm", 0.6, 1),
        ("bird", "alarm", 0.99, 1), ("bird", "miss", np.nan, 1), ("bird", "miss", np.nan, 3),
        ("bird", "known", np.nan, 1),
    )  # fmt: skip
    order = wanted(some)
    assert set(order[:2]) == {3, 5} and set(order[2:4]) == {2, 4} and order[4:] == [1, 0]


def test_sounds_are_those_of_the_events(sounds: Path, tmp_path: Path) -> None:
    frames = {name: frame_scores(seconds) for name, seconds in DURATIONS.items()}
    page = Page(write(tmp_path, audio_root=sounds, frames=frames, thresholds=0.5))
    data = page.data
    assert data["thresholds"] == [0.5, 0.5, 0.5]
    short, long = 0, 1
    for i, (f, onset, offset, k) in enumerate(
        zip(*(data["events"][key] for key in ("f", "on", "off", "k")), strict=True)
    ):
        medium = data["media"][data["events"]["m"][i]]
        assert medium["file"] == f
        assert medium["start"] <= onset and medium["stop"] >= min(offset, onset + 10)
        if f == short:
            assert (medium["start"], medium["stop"]) == (0, 6)
        else:
            assert medium["stop"] - medium["start"] <= WHOLE_S / 2 + 2 * AROUND_S
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(medium["audio"])))
        assert len(samples) / rate == pytest.approx(medium["stop"] - medium["start"], abs=0.1)
        at = round((onset + 0.2 - medium["start"]) * rate)
        spectrum = np.abs(np.fft.rfft(samples[at : at + 4096]))
        peak = np.argmax(spectrum) * rate / 4096
        others = [PITCH[c] for c in ("rain",)] if (onset, k) == (41.0, 1) else []
        assert min(abs(peak - hz) for hz in [PITCH[CLASSES[k]], *others]) < 10
        levels = np.frombuffer(base64.b64decode(medium["curves"][str(k)]), np.uint8)
        assert set(levels.tolist()) == {round(255 * (0.2, 0.4, 0.8)[k])}
        image = Image.open(io.BytesIO(base64.b64decode(medium["image"])))
        assert image.format == "WEBP"
    over = data["media"][data["overviews"][str(long)]]
    assert over["audio"] is None and (over["start"], over["stop"]) == (0, 90)
    assert str(short) not in data["overviews"]


@pytest.mark.parametrize("budget", [0, 30_000, 90_000])
def test_what_is_carried_keeps_to_its_bytes(sounds: Path, tmp_path: Path, budget: int) -> None:
    page = Page(write(tmp_path, audio_root=sounds, max_audio_bytes=budget))
    media = page.data["media"]
    used = sum(len(m["audio"] or "") + len(m["image"]) for m in media)
    assert used <= budget
    assert bool(media) == (budget > 0)
    assert len(page.data["events"]["f"]) == len(EVENTS)
    full = Page(write(tmp_path, audio_root=sounds)).data["media"]
    assert len(media) < len(full)


def test_what_cannot_be_read_is_told(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    some = table(("broken.wav", 0, 1, "bird"), ("gone.wav", 0, 1, "bird"))
    page = Page(write(tmp_path, files=["broken.wav", "gone.wav"], events=some, durations={},
                      audio_root=tmp_path))  # fmt: skip
    assert page.data["events"]["m"] == [None, None]
    assert all(text.startswith("cannot be played") for text in page.data["notes"].values())
    assert str(tmp_path) not in json.dumps(page.data)


# The page ----------------------------------------------------------------------------------------


def test_it_says_what_was_found(sounds: Path, tmp_path: Path) -> None:
    page = Page(write(tmp_path, audio_root=sounds, skipped=[("bad.wav", "is no audio")]))
    assert "6 events of 3 classes in 2 recordings" in page.text
    # rain sounds 2 s and 15 s of 96 s
    assert "1 min 36 s of sound were heard. Longest in all: rain, 17 s." in page.text
    cells = [a.get("data-value") for tag, a in page.tags if tag == "td" and "data-value" in a]
    assert cells[12:18] == ["2.0", "1.0", "17.0", "0.177083", "8.5", "0.625"]
    assert "bad.wav is no audio" in page.text and "rules bird threshold 0.5" in page.text
    assert "Missed" not in page.text


def test_with_a_reference_it_begins_with_what_is_wrong(sounds: Path, tmp_path: Path) -> None:
    score = event_based(REFERENCE, EVENTS, classes=CLASSES)
    page = Page(write(tmp_path, audio_root=sounds, reference=REFERENCE, scores={"events": score}))
    assert "Of 4 true events 2 were found and 2 missed; 4 false alarms." in page.text
    assert "events micro f1 0.4" in page.text  # 2 * 2 / (2 * 2 + 2 + 4)
    assert "What goes wrong?" in page.text
    data = page.data["events"]
    kinds = [page.data["kinds"][k] for k in data["kind"]]
    assert kinds == [
        "hit",
        "alarm",
        "alarm",
        "hit",
        "alarm",
        "alarm",
        "known",
        "miss",
        "known",
        "miss",
    ]
    assert [i for i, off in enumerate(data["shifted"]) if off] == [2, 7]
    # The first recording is the one with most errors.
    first = next(a["data-file"] for tag, a in page.tags if "data-file" in a)
    assert first == "1"


def test_nothing_is_fetched_and_hostile_names_are_texts(tmp_path: Path) -> None:
    name = f"{HOSTILE}.wav".replace("/", "∕")
    soundfile.write(tmp_path / name, np.zeros(RATE), RATE)
    label = "bird" + HOSTILE
    page = Page(
        write(tmp_path, files=[name], events=table((name, 0, 0.5, label, 0.9)), classes=[label],
              durations={name: 1.0}, audio_root=tmp_path, title=HOSTILE, command=HOSTILE,
              skipped=[(HOSTILE, HOSTILE)], parameters={HOSTILE: HOSTILE}, table=HOSTILE,
              reference=table((name, 0.7, 0.9, label)), scores={HOSTILE: 0.5})
    )  # fmt: skip
    assert sum(tag == "script" for tag, _ in page.tags) == 3  # the data and two of ours
    assert not any(tag == "b" for tag, _ in page.tags)
    assert page.data["names"] == [name] and page.data["classes"] == [label]
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy and "http" not in policy
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for key in ("src", "href", "action", "srcset", "poster"):
            assert not attributes.get(key), (tag, key)
        assert not any(key.startswith("on") for key in attributes)
    style = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert len(style) == 2 and not any("url(" in s or "@import" in s for s in style)


def test_ten_thousand_recordings_and_fifty_thousand_events(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i:05d}.wav" for i in range(10_000)]
    onset = rng.uniform(0, 58, 50_000)
    some = pd.DataFrame(
        {
            "file": np.array(names)[rng.integers(0, 10_000, 50_000)],
            "onset": onset,
            "offset": onset + 1,
            "label": np.array(CLASSES)[rng.integers(0, 3, 50_000)],
            "score": rng.random(50_000),
        }
    )
    path = write(tmp_path, files=names, events=some, durations=dict.fromkeys(names, 60.0),
                 audio_root=tmp_path)  # fmt: skip
    assert path.stat().st_size < 6_000_000
    page = Page(path)
    assert "50,000 events of 3 classes in 10,000 recordings" in page.text
    assert "9,900 more recordings" in page.text
    assert len(page.data["events"]["f"]) == 50_000 and len(page.tags) < 5000


def test_of_too_many_events_the_page_keeps_whole_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detections, "MOST_EVENTS", 25)
    rows = [(f"{f}.wav", i, i + 0.5, "bird") for f in range(5) for i in range(8 + f)]
    names = [f"{f}.wav" for f in range(5)]
    page = Page(write(tmp_path, files=names, events=table(*rows), audio_root=tmp_path,
                      durations=dict.fromkeys(names, 30.0)))  # fmt: skip
    # 12 and 11 of those with most, then 2 of the next.
    kept = np.bincount(page.data["events"]["f"], minlength=5)
    assert kept.tolist() == [0, 0, 2, 11, 12]
    assert "25 events are listed and drawn here, 25 are not" in page.text
    assert "50 events of 1 class in 5 recordings" in page.text


def test_nothing_found(tmp_path: Path) -> None:
    page = Page(write(tmp_path, events=EVENTS.iloc[:0], audio_root=tmp_path))
    assert "0 events of 0 classes in 2 recordings" in page.text
    assert not page.data and "Listen" not in page.text
    empty = Page(write(tmp_path, files=[], durations={}, events=EVENTS.iloc[:0]))
    assert "No recordings." in empty.text


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OssicleError, match="cannot be written"):
        write(tmp_path / "file" / "below")
    with pytest.raises(DataError, match="0 <= onset"):
        write(tmp_path, events=pd.DataFrame([{"file": "a", "onset": 2, "offset": 1, "label": "x"}]))
    assert not list(tmp_path.glob("*.html"))


# The command -------------------------------------------------------------------------------------

app = typer.Typer()
app.command()(picture)


@app.command()
def other() -> None:
    """Two commands, so that the first is called by its name."""


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["picture", *map(str, arguments)])


def test_the_command_draws_and_writes(sounds: Path, tmp_path: Path) -> None:
    found = tmp_path / "events.csv"
    EVENTS.assign(threshold=0.4).to_csv(found, index=False)
    done = run(sounds / "short.wav", found, "-o", tmp_path / "a.png", "--onset", 1, "--width", 600)
    assert done.exit_code == 0, done.exception
    assert "2 events of 1 recordings" in done.stdout
    assert Image.open(tmp_path / "a.png").width == 600
    REFERENCE.to_csv(tmp_path / "true.csv", index=False)
    done = run(sounds, found, "-o", tmp_path / "b.html", "--reference", tmp_path / "true.csv")
    assert done.exit_code == 0, done.exception
    page = Page(tmp_path / "b.html")
    assert "micro f1 0.4" in page.text and page.data["thresholds"] == [0.4, 0.4, 0.4]
    assert page.data["files"] == [6.0, 90.0]
    audacity = tmp_path / "short.txt"
    audacity.write_text("1.0\t2.0\tbird\n")
    done = run(sounds / "short.wav", audacity, "-o", tmp_path / "c.html")
    assert done.exit_code == 0 and Page(tmp_path / "c.html").data["media"]


def test_the_command_reads_what_detect_leaves(sounds: Path, tmp_path: Path) -> None:
    from ossicle.detect.tables import ScoreFile

    EVENTS[EVENTS["file"] == "long.wav"].to_csv(tmp_path / "events.csv", index=False)
    (tmp_path / "files.csv").write_text(
        "file,status,seconds,events,reason,sha256\nlong.wav,ok,90,4,,x\nshort.wav,ok,6,0,,x\n"
        "bad.wav,failed,0,0,is no audio,\n"
    )
    for name, seconds in DURATIONS.items():
        file = ScoreFile(tmp_path / "scores" / f"{Path(name).stem}.parquet", CLASSES)
        file.add(frame_scores(seconds))
        file.close(done=True)
    scores = ("--scores", tmp_path / "scores")
    done = run(sounds, tmp_path / "events.csv", "-o", tmp_path / "a.html", *scores)
    assert done.exit_code == 0, done.exception
    page = Page(tmp_path / "a.html")
    assert "4 events of 3 classes in 2 recordings" in page.text
    assert "bad.wav is no audio" in page.text
    assert all(medium["curves"] for medium in page.data["media"])
    # A recording without events that the table of recordings names is drawn without events.
    done = run(sounds / "short.wav", tmp_path / "events.csv", "-o", tmp_path / "a.png", *scores)
    assert done.exit_code == 0 and "0 events" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("short.wav", "-o", "a.pdf"), "as .png"),
        (("gone.wav", "-o", "a.png"), "no such recording"),
        ((".", "-o", "a.png"), "is a folder"),
        (("short.wav", "-o", "a.html", "--onset", "1"), "--onset"),
        (("other.wav", "-o", "a.png"), "names other recordings"),
        (("short.wav", "-o", "a.png", "--scores", "gone.parquet"), "no frame scores"),
    ],
)
def test_what_the_command_refuses(
    sounds: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    EVENTS.to_csv(tmp_path / "events.csv", index=False)
    soundfile.write(sounds / "other.wav", np.zeros(100), RATE)
    done = run(sounds / arguments[0], tmp_path / "events.csv", *arguments[1:2],
               tmp_path / arguments[2], *arguments[3:])  # fmt: skip
    assert isinstance(done.exception, OssicleError) and message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_recordings_of_one_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "a.wav", np.zeros(RATE), RATE)
    some = table(("x/a.wav", 0, 1, "bird"), ("y/a.wav", 0, 1, "frog"), ("y/a.wav", 0, 1, "rain"))
    some.to_csv(tmp_path / "events.csv", index=False)
    done = run(tmp_path / "y" / "a.wav", tmp_path / "events.csv", "-o", tmp_path / "o.png")
    assert "2 events" in done.stdout
    some.assign(file=["p/a.wav", "q/a.wav", "q/a.wav"]).to_csv(tmp_path / "events.csv", index=False)
    done = run(tmp_path / "y" / "a.wav", tmp_path / "events.csv", "-o", tmp_path / "o.png")
    assert isinstance(done.exception, DataError) and "several recordings" in str(done.exception)


# A browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():  # type: ignore[no-untyped-def]
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(
        (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None
    )
    if found is None:
        pytest.skip("needs Debian's chromium in /usr/bin")
    with playwright.sync_playwright() as running:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--no-first-run", "--disable-component-update", "--disable-sync"]
        flags += ["--autoplay-policy=no-user-gesture-required"]
        window = running.chromium.launch(executable_path=found, args=flags)
        yield window
        window.close()


def test_in_a_browser(browser, sounds: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    names = {"bird": "bird" + HOSTILE, "frog": "frog", "rain": "rain"}
    path = write(
        tmp_path,
        events=EVENTS.assign(label=EVENTS["label"].map(names)),
        reference=REFERENCE.assign(label=REFERENCE["label"].map(names)),
        classes=list(names.values()),
        audio_root=sounds,
        frames={name: frame_scores(seconds) for name, seconds in DURATIONS.items()},
        thresholds=0.5,
    )
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: wrong.append("dialog"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "blob:", "data:"))
            else wrong.append(request.url)
        ),
    )
    page.goto(path.as_uri())

    def listed() -> list[str]:
        return [text.split("\n")[0] for text in page.locator("#events button").all_inner_texts()]

    def now() -> float:
        """Seconds in the sound that is played."""
        return float(page.evaluate("document.querySelector('#sound').currentTime"))

    def until(what: str) -> None:
        """Asks again and again: the page's policy keeps playwright from compiling a text."""
        for _ in range(100):
            if page.evaluate(what):
                return
            page.wait_for_timeout(50)
        raise AssertionError(f"never: {what}")

    def cursor() -> float:
        return float(page.evaluate("parseFloat(document.querySelector('#view i').style.left)"))

    # It opens with the errors: the surest false alarm, the longest missed event, in turn.
    first = listed()
    assert first[0].startswith("bird</script><script>") and "false alarm, times off" in first[0]
    assert first[1] == "frog missed" and "frog false alarm" in first[2] and len(first) == 6
    # A click plays the event from half a second before it, and the cursor moves over the picture.
    page.locator("#events button").nth(1).click()
    until("!document.querySelector('#sound').paused")
    until("document.querySelector('#sound').currentTime > 1.2")
    before = cursor()
    page.wait_for_timeout(300)
    assert cursor() > before + 5
    # Only an excerpt is carried; a second view shows all 90 s.
    assert page.is_visible("#overview canvas")
    # Space stops and goes on.
    page.keyboard.press("Space")
    assert page.evaluate("document.querySelector('#sound').paused")
    stopped = now()
    page.keyboard.press("Space")
    until(f"document.querySelector('#sound').currentTime > {stopped + 0.1}")
    # Down goes to the next; it is in the short recording, which is carried whole.
    page.keyboard.press("ArrowDown")
    until("document.querySelector('#now-file').textContent === 'long.wav'")
    page.select_option("#by-kind", "")
    page.fill("#by-file", "short")
    assert [text.split(" ")[-1] for text in listed()] == ["alarm", "hit"]
    page.locator("#events button").nth(0).click()
    until("document.querySelector('#now-file').textContent === 'short.wav'")
    assert not page.is_visible("#overview canvas")
    until("document.querySelector('#sound').currentTime > 3.4")
    # A click into the lanes chooses the event there: the bird at 1 s to 2 s of 6 s, its bar above
    # that of the reference in the first of the lanes.
    page.keyboard.press("Space")
    box = page.locator("#view canvas").bounding_box()
    assert box is not None
    wide = box["width"]
    gutter = round(min(150, max(64, wide * 0.17)))
    page.mouse.click(box["x"] + gutter + (wide - gutter) * 1.5 / 6, box["y"] + 156 + 20)
    assert page.inner_text("#now-event").startswith("bird</script>")
    assert "1.00 s to 2.00 s, score 0.90 · hit" in page.inner_text("#now-event")
    until("document.querySelector('#sound').currentTime > 0.6")
    # By class, by score, and the order.
    page.fill("#by-file", "")
    page.select_option("#by-class", label="rain")
    assert len(listed()) == 2
    page.fill("#by-score", "0.6")
    assert listed() == ["rain false alarm"]
    page.select_option("#by-class", "")
    page.fill("#by-score", "0")
    page.select_option("#order", "time")
    assert [text.split(" ")[-1] for text in listed()][:2] == ["hit", "alarm"]
    # The table of recordings opens one.
    page.click("[data-file='1']")
    assert page.inner_text("#now-file") == "long.wav"
    first_class = "document.querySelector('.sortable tbody th').textContent"
    page.click(".sortable thead button >> nth=0")
    page.click(".sortable thead button >> nth=0")
    assert page.evaluate(first_class) == "rain"
    for width in (400, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
    assert wrong == []
