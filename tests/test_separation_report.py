"""The page of separations: levels, volumes, places, scores, hostile names, and a browser."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from ossicle.errors import OssicleError
from ossicle.frontend.mel import hz_to_mel
from ossicle.report.separation import decibels, times, write_separation_report
from ossicle.report.separation_media import (
    EXCERPT_S,
    FRAME_S,
    SeparationItem,
    coloured,
    loudness_db,
    scale_of,
    ticks,
    views_of,
    volumes,
)
from ossicle.report.separation_scores import bins, histograms, score_table

RATE = 8000
HOSTILE = "</script><script>alert(1)</script> \"Größe\" <b>&amp; 'x' ${1} {{2}}"


def tone(hz: float, seconds: float, level: float, rate: int = RATE) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """short.wav, 4 s: two tones, low (0.3) and high (0.1), and each alone at half its level;
    long.wav, 50 s: the low one throughout, the high one from 30 to 40 s."""
    place = tmp_path_factory.mktemp("separated")
    low, high = tone(300, 4, 0.3), tone(2000, 4, 0.1)
    for name, samples in (("short", low + high), ("low", low / 2), ("high", high / 2)):
        soundfile.write(place / f"{name}.wav", samples, RATE, subtype="FLOAT")
    low, high = tone(300, 50, 0.3), tone(2000, 50, 0.1)
    high[: 30 * RATE] *= 1e-3
    high[40 * RATE :] *= 1e-3
    for name, samples in (("long", low + high), ("long_low", low), ("long_high", high)):
        soundfile.write(place / f"{name}.wav", samples, RATE, subtype="FLOAT")
    return place


def short(folder: Path, **changes: Any) -> SeparationItem:
    made: dict[str, Any] = {
        "name": "short.wav",
        "before": folder / "short.wav",
        "after": {"low": folder / "low.wav", "high": folder / "high.wav"},
        "gain_db": 20 * math.log10(0.5),
    }
    return SeparationItem(**{**made, **changes})


def long(folder: Path) -> SeparationItem:
    after = {"low": folder / "long_low.wav", "high": folder / "long_high.wav"}
    return SeparationItem("long.wav", folder / "long.wav", after)


def test_levels_are_told_without_the_gain(folder):
    """Of sines: 10 log10(a^2 / (a^2 + b^2)), whatever gain the outputs were written with."""
    (view,) = views_of(short(folder), folder / "page.html")
    levels = [track["level_db"] for track in view["tracks"]]
    whole = 0.3**2 + 0.1**2
    expected = [0.0, 10 * math.log10(0.3**2 / whole), 10 * math.log10(0.1**2 / whole)]
    assert levels == pytest.approx(expected, abs=0.01)


def test_volumes_are_proportional_or_equal(folder):
    (view,) = views_of(short(folder), folder / "page.html")
    # The recording is turned down by the gain of the outputs.
    assert [t["plain"] for t in view["tracks"]] == pytest.approx([0.5, 1, 1], abs=1e-3)
    # RMS of the files: sqrt((.3^2 + .1^2) / 2), .15 / sqrt 2, .05 / sqrt 2; all to the quietest.
    rms = np.array([math.sqrt(0.1), 0.15, 0.05]) / math.sqrt(2)
    assert [t["equal"] for t in view["tracks"]] == pytest.approx(
        0.05 / math.sqrt(2) / rms, rel=0.01
    )


def test_a_track_much_quieter_than_the_rest_is_not_waited_for():
    quiet, loud = np.full(10, 1e-6), np.full(10, 1e-1)
    plain, equal = volumes([loud, 0.25 * loud, quiet], [0.0, 0.0, 0.0])
    assert plain == [1, 1, 1]
    assert equal == pytest.approx([0.5, 1, 1])
    assert volumes([0 * loud, 0 * loud], [0.0, -6.0])[1] == [1, 1]


def test_pauses_make_a_source_no_quieter():
    """As pyloudnorm's gates have it: below -70 dB, and 10 dB below the mean of the rest."""
    talk = np.full(10, 0.01)
    assert loudness_db(np.concatenate([talk, np.zeros(90)])) == pytest.approx(-20)
    assert loudness_db(np.concatenate([talk, np.full(10, 1e-4)])) == pytest.approx(-20)
    assert loudness_db(np.concatenate([talk, np.full(10, 0.005)])) == pytest.approx(
        10 * math.log10(0.0075)
    )
    assert loudness_db(np.zeros(5)) is None


def test_what_was_removed_is_the_difference(folder):
    item = short(folder, after={"clean": folder / "low.wav"})
    (view,) = views_of(item, folder / "page.html")
    assert [t["name"] for t in view["tracks"]] == ["the recording", "clean", "removed"]
    assert view["tracks"][2]["level_db"] == pytest.approx(10 * math.log10(0.01 / 0.1), abs=0.02)
    assert view["tracks"][2]["link"] is None
    sound, rate = soundfile.read(io.BytesIO(view["tracks"][2]["sound"]))
    spectrum = np.abs(np.fft.rfft(sound[rate : 2 * rate]))
    assert np.argmax(spectrum) == 2000


def test_what_was_removed_from_a_long_recording(folder):
    """Outputs at half the level: what is removed is the high tone, in the whole as in the part."""
    half = folder / "long_low_half.wav"
    soundfile.write(half, tone(300, 50, 0.15), RATE, subtype="FLOAT")
    gain_db = 20 * math.log10(0.5)
    item = SeparationItem("long.wav", folder / "long.wav", {"clean": half}, [], gain_db)
    excerpt, whole = views_of(item, folder / "page.html")
    share = 0.1**2 * 0.2 / (0.3**2 + 0.1**2 * 0.2)
    assert whole["tracks"][2]["level_db"] == pytest.approx(10 * math.log10(share), abs=0.05)
    assert (excerpt["start"], excerpt["stop"]) == pytest.approx((30, 45), abs=5.5)
    assert whole["tracks"][2]["playable"] is False


def test_a_long_recording_has_an_excerpt_where_all_is_heard_and_its_whole_is_linked(folder):
    excerpt, whole = views_of(long(folder), folder / "sub" / "page.html")
    assert excerpt["stop"] - excerpt["start"] == pytest.approx(EXCERPT_S)
    assert excerpt["start"] <= 30 + FRAME_S
    assert excerpt["stop"] >= 40 - FRAME_S
    assert (whole["start"], whole["stop"]) == (0, 50)
    assert [t["sound"] for t in whole["tracks"]] == [None] * 3
    assert [unquote(t["link"]) for t in whole["tracks"]] == [
        "../long.wav",
        "../long_low.wav",
        "../long_high.wav",
    ]
    # The level told is that of the whole: 10 of 50 s.
    share = 0.1**2 * 0.2 / (0.3**2 + 0.1**2 * 0.2)
    assert whole["tracks"][2]["level_db"] == pytest.approx(10 * math.log10(share), abs=0.05)
    assert excerpt["tracks"][2]["level_db"] == whole["tracks"][2]["level_db"]
    # What is carried is the excerpt: the high tone is off before 30 s.
    sound, rate = soundfile.read(io.BytesIO(excerpt["tracks"][2]["sound"]))
    at = round((30 - excerpt["start"]) * rate)
    if at > rate // 2:
        assert (
            np.abs(sound[: at - rate // 10]).max() < 0.01 < np.abs(sound[at + rate // 10 :]).max()
        )


def test_pictures_share_the_recordings_scale(folder):
    (view,) = views_of(short(folder), folder / "page.html")
    images = [
        np.asarray(Image.open(io.BytesIO(t["image"])).convert("L"), float) for t in view["tracks"]
    ]
    # Both tones are as bright alone as in the mixture, though the files are 6 dB softer.
    rows = [np.argmax(image[:, 400]) for image in images[1:]]
    for image, row in zip(images[1:], rows, strict=True):
        assert image[row, 100:700].mean() == pytest.approx(images[0][row, 100:700].mean(), abs=12)
    assert rows[0] > rows[1], "the low tone lies lower"


def test_colours_run_from_the_darkest_to_the_brightest():
    levels = np.linspace(-100, 0, 101)[:, None] * np.ones((1, 50))
    top, floor = scale_of(levels)
    assert (top, floor) == (0, -70)
    grey = np.asarray(Image.open(io.BytesIO(coloured(levels, (0, -50)))).convert("L"), float)
    assert grey[0].mean() > 200 > 40 > grey[-1].mean()
    assert grey[70:].std() < 3, "all below the scale is alike"
    # A noise: the quietest tenth is dark, but 25 dB are shown at least.
    assert scale_of(np.full((4, 9), -30.0) - np.arange(4)[:, None]) == (-30, -55)


def test_ticks_lie_where_their_frequencies_are():
    found = dict(ticks(8000))
    low, high = hz_to_mel(np.array([0.0, 8000.0]), "slaney")
    for text, at in found.items():
        value, unit = text.split()
        hz = float(value) * (1000 if unit == "kHz" else 1)
        assert at == pytest.approx(
            (hz_to_mel(np.array([hz]), "slaney")[0] - low) / (high - low), abs=2e-3
        )
    places = list(found.values())
    assert min(np.diff(places)) > 0.13
    assert "4 kHz" in found


@pytest.mark.parametrize(
    ("start", "stop", "texts"),
    [
        (0, 4, ["0 s", "0.5 s", "1 s", "1.5 s", "2 s", "2.5 s", "3 s", "3.5 s", "4 s"]),
        (12.4, 27.4, ["14 s", "16 s", "18 s", "20 s", "22 s", "24 s", "26 s"]),
        (0, 95, ["0:00", "0:15", "0:30", "0:45", "1:00", "1:15", "1:30"]),
        (0, 7300, ["0:00", "30:00", "1:00:00", "1:30:00", "2:00:00"]),
    ],
)
def test_times_are_round(start, stop, texts):
    found = times(start, stop)
    assert [text for text, _, _ in found] == texts
    assert all(0 <= t[1] <= 1 for t in found)


def test_decibels_have_a_sign():
    assert [decibels(x) for x in (-3.24, 0.04, -0.04, 12)] == ["−3.2", "0.0", "0.0", "+12.0"]


def scores() -> list[dict[str, Any]]:
    """As `Scores.summary` gives them."""

    def row(system: str, si_sdr: float, gain: float, speed: float | None) -> dict[str, Any]:
        values = {"si_sdr": si_sdr, "si_sdr_improvement": gain}
        limits = {k: {"value": v, "low": v - 1, "high": v + 2} for k, v in values.items()}
        return {"system": system, **limits, "times_real_time": speed}

    return [
        row("mixture", 0.5, 0, None),
        row("ideal ratio mask", 9.5, 9, None),
        row("mine", 4.5, 4, 31.7),
    ]


def test_table_of_scores():
    table = score_table(pd.DataFrame(scores()))
    assert table is not None
    assert table["columns"] == ["SI-SDR improvement, dB", "SI-SDR, dB", "Times real time"]
    assert [row["is_bound"] for row in table["rows"]] == [True, True, False]
    mine = table["rows"][2]["cells"]
    assert mine == [(4.0, "4.00", "3.00 to 6.00"), (4.5, "4.50", "3.50 to 6.50"), (31.7, "32", "")]
    flat = pd.DataFrame([{"system": "mine", "si_sdr": 4.5, "si_sdr_low": 3.5, "si_sdr_high": 6.5}])
    again = score_table(flat)
    assert again is not None
    assert again["rows"][0]["cells"] == [(4.5, "4.50", "3.50 to 6.50")]
    # Places of the drawing grow as the values do.
    plot = table["plot"]
    places = [row["at"] for row in plot["rows"]]
    assert (places[2] - places[0]) / (places[1] - places[0]) == pytest.approx(4 / 9, abs=1e-3)
    assert all(0 <= x <= 100 for row in plot["rows"] for x in (row["low"], row["high"]))
    assert score_table(pd.DataFrame({"system": ["a"]})) is None


def test_histogram_counts_every_mixture_once():
    rng = np.random.default_rng(0)
    values = {"mine": rng.normal(4, 3, 200), "other": rng.normal(1, 3, 50)}
    table = pd.concat(
        [pd.DataFrame({"system": k, "si_sdr_improvement": v}) for k, v in values.items()]
        + [pd.DataFrame({"system": "mixture", "si_sdr_improvement": np.zeros(200)})]
    )
    made = histograms(table)
    assert made is not None
    assert [s["name"] for s in made["systems"]] == ["mine", "other"]
    for system in made["systems"]:
        some = values[system["name"]]
        counts = [int(re.search(r": (\d+) of", bar["title"])[1]) for bar in system["bars"]]
        assert sum(counts) == len(some)
        worse = round(100 * float((some < 0).mean()))
        assert f"{worse}\u00a0% of {len(some)}" in system["told"]
        heights = np.array([bar["height"] for bar in system["bars"]])
        assert np.allclose(heights / heights.max(), np.array(counts) / max(counts), atol=1e-3)
    edges = bins(float(table["si_sdr_improvement"].min()), float(table["si_sdr_improvement"].max()))
    assert 0.0 in edges
    assert histograms(table[table["system"] == "mixture"])["systems"][0]["bars"][0]["height"] > 0
    assert histograms(pd.DataFrame({"system": [], "si_sdr_improvement": []})) is None


class Page(HTMLParser):
    """Tags, images without a text of their own, and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag == "img":
            self.images.append(dict(attrs))


def data_of(text: str) -> Any:
    found = re.search(r'id="recordings">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1]) if found else None


def test_page_carries_what_is_short_and_links_the_rest(folder, tmp_path):
    seen: list[tuple[int, int]] = []
    gone = SeparationItem("gone.wav", folder / "gone.wav", {"low": folder / "low.wav"})
    page = write_separation_report(
        tmp_path / "deep" / "report.html",
        [short(folder), long(folder), gone],
        title="Tones",
        facts={"Bundle": "tones.ossicle"},
        scores=pd.DataFrame(scores()),
        mixtures=pd.DataFrame({"system": "mine", "si_sdr_improvement": [1.0, -2.0, 3.0]}),
        command="ossicle separate run tones.ossicle short.wav",
        progress=lambda done, total: seen.append((done, total)),
    )
    text = page.read_text()
    parsed = Page(text)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    data = data_of(text)
    assert [len(views) for views in data] == [1, 2]
    # A silent picture would say nothing to those who cannot see it.
    assert len(parsed.images) == 3 + 2 * 3
    assert all("Spectrogram of" in (image["alt"] or "") for image in parsed.images)
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data[0][0]["tracks"][0]["sound"])))
    assert len(sound) / rate == pytest.approx(4, abs=0.1)
    links = [a for a in parsed.addresses if not a.startswith("data:")]
    assert all((page.parent / unquote(a)).exists() for a in links if "gone" not in a)
    assert not any(":" in a or a.startswith("/") for a in links)
    assert "gone.wav" in text
    assert "cannot be shown" in text
    assert "−0.5 dB against the recording" in text
    assert "−6.0 dB so as not to clip" in text


def test_page_keeps_to_its_bytes(folder, tmp_path):
    items = [short(folder, name=f"{i}.wav") for i in range(6)]
    size = len(
        "".join(
            t["sound"]
            for views in data_of(
                write_separation_report(
                    tmp_path / "one.html", items[:1], title="", facts={}
                ).read_text()
            )
            for v in views
            for t in v["tracks"]
        )
    )
    page = write_separation_report(
        tmp_path / "some.html", items, title="", facts={}, max_audio_bytes=5 * size
    )
    text = page.read_text()
    carried = sum(len(a) for a in Page(text).addresses if a.startswith("data:image")) + sum(
        len(t["sound"]) for views in data_of(text) for v in views for t in v["tracks"]
    )
    shown = text.count('<article class="recording"')
    assert 1 <= shown < 6
    assert carried <= 5 * size + shown * 3 * 30
    assert f"({6 - shown}), as files only" in text


def test_hostile_names_stay_text(folder, tmp_path):
    """The page has the same tags whatever things are called."""

    def tags(name: str) -> list[str]:
        after = {name: folder / "low.wav", "b": folder / "high.wav"}
        page = write_separation_report(
            tmp_path / "report.html",
            [SeparationItem(name, folder / "short.wav", after, [name], 0.0)],
            title=name,
            facts={name: name},
            scores=pd.DataFrame([{"system": name, "si_sdr": 1.0}]),
            mixtures=pd.DataFrame({"system": [name] * 3, "si_sdr_improvement": [1.0, 2.0, 3.0]}),
            command=name,
        )
        text = page.read_text()
        assert data_of(text)
        return Page(text).tags

    assert tags(HOSTILE) == tags("plain")


def test_silence_and_one_sample(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "tiny.wav", np.full(1, 0.1), RATE)
    items = [
        SeparationItem("silent", tmp_path / "silent.wav", {"a": tmp_path / "silent.wav"}),
        SeparationItem("tiny", tmp_path / "tiny.wav", {"a": tmp_path / "tiny.wav"}),
    ]
    text = write_separation_report(
        tmp_path / "p.html", items, title="Nothing", facts={}
    ).read_text()
    assert text.count("silent") >= 2
    assert len(data_of(text)) == 2


def test_empty_and_not_writable(tmp_path):
    page = write_separation_report(tmp_path / "p.html", [], title="None", facts={})
    assert "<article" not in page.read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(OssicleError, match="cannot be written"):
        write_separation_report(tmp_path / "file" / "p.html", [], title="None", facts={})


def test_switching_in_a_browser_keeps_the_place(folder, tmp_path):
    sync = pytest.importorskip("playwright.sync_api")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("no browser at /usr/bin/chromium")
    page_file = write_separation_report(
        folder / "page.html", [short(folder), long(folder)], title="Tones", facts={}
    )
    with sync.sync_playwright() as tool:
        browser = tool.chromium.launch(
            executable_path=str(chromium),
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )
        page = browser.new_page(viewport={"width": 400, "height": 800})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto(page_file.as_uri())

        def state(number: int) -> dict[str, Any]:
            found: dict[str, Any] = page.evaluate(f"ossiclePlayers[{number}].state()")
            return found

        def until(number: int, test: Callable[[dict[str, Any]], bool]) -> None:
            for _ in range(400):
                if test(state(number)):
                    return
                page.wait_for_timeout(50)
            pytest.fail(f"waited in vain: {state(number)}")

        page.keyboard.press(" ")
        until(0, lambda s: s["isPlaying"] and s["at"] > 0.3)
        before = state(0)
        page.keyboard.press("3")
        after = state(0)
        assert (before["heard"], after["heard"]) == (0, 2)
        assert before["at"] <= after["at"] <= before["at"] + 1
        until(0, lambda s: s["at"] > after["at"] + 0.2)
        page.keyboard.press(" ")
        stopped = state(0)
        assert not stopped["isPlaying"]
        assert state(0)["at"] == stopped["at"]
        # The other recording, then its whole out of the file, at the same moment.
        page.locator("[data-recording='1'] .play").click()
        until(1, lambda s: s["isPlaying"] and s["at"] > 0.2)
        begin, start = data_of(page_file.read_text())[1][0]["start"], state(1)["at"]
        page.locator("[data-recording='1'] [data-view='1']").click()
        until(1, lambda s: s["view"] == 1 and s["isPlaying"] and s["at"] > begin + start + 0.1)
        assert state(1)["at"] < begin + start + 12
        width = page.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert not problems
    assert width <= 400
