"""The report: every schema, nothing fetched, hostile names, sounds that play, and a browser."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix

from ossicle.errors import DataError, OssicleError
from ossicle.report import write_report
from ossicle.report.advice import advice
from ossicle.report.checks import checks
from ossicle.report.clips import (
    LISTED,
    PICTURE_BYTES,
    PICTURE_SIZE,
    carried,
    clip_lists,
    encode_sound,
    spectrogram_image,
)
from ossicle.report.figures import Scale, learning_chart, nice_ticks, scatter_chart, strip_chart
from ossicle.report.page import plain
from ossicle.report.words import compact, format_interval, format_score, labels_of, verdict

CLASSES = ["bird", "frog", "rain"]
HOSTILE = "</script><script>alert(1)</script> \"Größe\" <b>&amp; a:b, \u2028 'x'"


def tone(hz: float, seconds: float, sample_rate: int) -> np.ndarray:
    """(N,) sine of amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)


def score(value: float, half: float = 0.03) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tones of 0.3 s, 500 Hz and up in steps of 100 Hz, 22.05 kHz stereo."""
    folder = tmp_path_factory.mktemp("sounds")
    for i in range(12):
        samples = tone(500 + 100 * i, 0.3, 22050)
        soundfile.write(folder / f"{i}.wav", np.stack([samples, samples], 1), 22050)
    return folder


def classes_evaluation() -> dict[str, Any]:
    items = [
        {
            "path": f"{i}.wav",
            "onset": None,
            "offset": None,
            "label": CLASSES[i % 3],
            "predicted": CLASSES[i % 3 if i < 9 else (i + 1) % 3],
            "probability": 0.5 + i / 30,
            "group": f"g{i // 2}",
            "fold": i % 3,
        }
        for i in range(12)
    ]
    return {
        "title": "Pond",
        "created": "2025-03-01T10:00:00+00:00",
        "task": "classes",
        "classes": CLASSES,
        "metric": "accuracy",
        "score": score(0.75),
        "scores": {"accuracy": score(0.75), "auc": {"value": 0.9, "low": None, "high": None}},
        "chance": 1 / 3,
        "protocol": {
            "text": "Three folds.",
            "n_folds": 3,
            "n_clips": 12,
            "n_groups": 6,
            "group_source": "column 'pond'",
            "notes": ["a note"],
            "confidence": 0.95,
        },
        "random_split": score(0.9, 0.01),
        "shuffled_labels": {**score(0.33), "repeats": 3},
        "audit": {
            "n_clips": 12,
            "bytes": [[0, 1]],
            "samples": [{"a": 2, "b": 3, "kind": "same", "similarity": 0.99}],
            "near": [{"a": 4, "b": 5, "similarity": 0.98}],
            "across_split": [{"a": 2, "b": 3, "kind": "same", "folds": [0]}],
            "n_leaked": 1,
            "label_conflicts": [{"a": 0, "b": 1, "labels": ["bird", "frog"]}],
            "silent": [7],
            "unreadable": [],
            "paths": {str(i): f"/data/{i}.wav" for i in range(8)},
        },
        "per_class": [
            {
                "class": name,
                "support": 4,
                "precision": 0.75,
                "recall": 0.75,
                "f1": 0.75,
                "auc": None,
            }
            for name in CLASSES
        ],
        "confusion": {"classes": CLASSES, "matrix": [[3, 1, 0], [0, 3, 1], [1, 0, 3]]},
        "items": items,
        "by_layer": [{"layer": f"conv{i}", "score": 0.5 + i / 10} for i in range(3)],
        "subsets": [
            {"layers": ["conv0", "conv2"], "score": 0.76},
            {"layers": ["conv2"], "score": 0.7},
            {"layers": ["conv0", "conv1", "conv2"], "score": 0.69},
        ],
        "chosen": {"layers": ["conv0", "conv2"], "score": score(0.76), "method": "all sets"},
        "all_layers": score(0.69),
        "learning_curve": {
            "points": [
                {"n_train": 3, "per_class": 1, "score": 0.4, "low": 0.3, "high": 0.5},
                {"n_train": 9, "per_class": 3, "score": 0.7, "low": 0.6, "high": 0.8},
            ],
            "advice": ["Twice the recordings would bring 5 points."],
        },
        "audio": {
            "n_files": 12,
            "seconds_read": 3.6,
            "seconds_used": 3.0,
            "clip_policy": "first 0.25 s",
            "sample_rate": 16000,
        },
        "skipped": [{"path": "broken.wav", "reason": "is empty"}],
        "backbone": {"name": "net", "licence": "MIT", "parameters": 1234567, "layers": 3},
        "probe": {"name": "ridge", "alpha": [0.1, 1.0]},
        "arguments": {"layers": "all"},
        "record": {"versions": {"numpy": "2"}, "seed": 0},
        "timing": {"extract_s": 1.5, "times_real_time": 2.4},
        "command": "ossicle evaluate pond",
    }


def multilabel_evaluation() -> dict[str, Any]:
    base = classes_evaluation()
    for i, item in enumerate(base["items"]):
        item["label"] = [CLASSES[i % 3]] if i else []
        item["predicted"] = [CLASSES[i % 3], "rain"] if i % 2 else []
        item["probability"] = {"bird": 0.1, "frog": 0.2, "rain": 0.05 * i}
    return {**base, "task": "multilabel", "metric": "map", "chance": 0.0, "confusion": None}


def regression_evaluation() -> dict[str, Any]:
    base = classes_evaluation()
    for i, item in enumerate(base["items"]):
        item["label"], item["predicted"], item["probability"] = (
            float(i),
            i + 0.1 * i * (-1) ** i,
            None,
        )
    return {
        **base,
        "task": "regression",
        "metric": "r2",
        "classes": [],
        "confusion": None,
        "per_class": None,
        "chance": 0.0,
        "scores": {"r2": score(0.75), "rmse": score(1234.5)},
    }


EVALUATIONS = {
    "classes": classes_evaluation,
    "multilabel": multilabel_evaluation,
    "regression": regression_evaluation,
}


class Page(HTMLParser):
    """What a browser's parser makes of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(text)
        self.data = json.loads(self.scripts[0]) if len(self.scripts) > 1 else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.within = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts[-1] += data
        elif not self.within:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


# The three schemas -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", EVALUATIONS)
def test_full_page_of_each_task(task: str, sounds: Path, tmp_path: Path) -> None:
    page = read(write_report(EVALUATIONS[task](), tmp_path, audio_root=sounds))
    for heading in ("How good is it?", "Can the number be trusted?", "What goes wrong?"):
        assert heading in page.text
    assert "ossicle evaluate pond" in page.text
    assert "broken.wav" in page.text and "is empty" in page.text
    # A clip without a label, and rightly so, is in the list of no class.
    assert len(page.data["media"]) == (11 if task == "multilabel" else 12)
    # Everything that can be clicked leads to a list that is there.
    clicked = {a["data-list"] for _, a in page.tags if a.get("data-list")}
    assert clicked and clicked <= set(page.data["lists"])


@pytest.mark.parametrize("task", EVALUATIONS)
@pytest.mark.parametrize("missing", [None, "absent", "empty"])
def test_each_part_may_be_missing(task: str, missing: str | None, tmp_path: Path) -> None:
    whole = EVALUATIONS[task]()
    for key in [*(set(whole) - {"task"}), "everything"]:
        keys = set(whole) - {"task"} if key == "everything" else {key}
        part = {k: v for k, v in whole.items() if k not in keys}
        if missing is None:
            part |= dict.fromkeys(keys)
        elif missing == "empty":
            part |= {k: type(whole[k])() for k in keys if isinstance(whole[k], dict | list)}
        page = read(write_report(part, tmp_path, max_clips_per_cell=0))
        assert "undefined" not in page.text and "None" not in page.text


def test_keys_of_parts_may_be_missing(tmp_path: Path) -> None:
    whole = classes_evaluation()
    for key, value in whole.items():
        entries = value if isinstance(value, list) else [value]
        for name in {n for x in entries if isinstance(x, dict) for n in x}:
            part = copy.deepcopy(whole)
            for entry in part[key] if isinstance(value, list) else [part[key]]:
                entry.pop(name, None)
            write_report(part, tmp_path, max_clips_per_cell=0)


def test_confusion_is_counted_where_it_is_not_given(tmp_path: Path) -> None:
    part = {k: v for k, v in classes_evaluation().items() if k not in ("confusion", "classes")}
    page = read(write_report(part, tmp_path, max_clips_per_cell=0))
    told = [a["aria-label"] for tag, a in page.tags if a.get("role") == "gridcell"]
    assert "bird taken for frog: 1" in told and "bird taken for bird: 3" in told


def test_numpy_and_the_callers_dict(sounds: Path, tmp_path: Path) -> None:
    evaluation = classes_evaluation()
    evaluation["confusion"]["matrix"] = np.array(evaluation["confusion"]["matrix"])
    evaluation["score"]["value"] = np.float32(0.75)
    evaluation["items"][0]["onset"] = float("nan")
    evaluation["items"][0]["fold"] = np.int64(0)
    before = copy.deepcopy(evaluation)
    assert "75.0" in read(write_report(evaluation, tmp_path, audio_root=sounds)).text
    np.testing.assert_equal(evaluation, before)


# report.json and how the files are written -----------------------------------------------------


def test_json_has_null_for_nan(tmp_path: Path) -> None:
    evaluation = classes_evaluation()
    evaluation["score"]["low"] = float("nan")
    evaluation["per_class"][0]["auc"] = np.float64("inf")
    write_report(evaluation, tmp_path, max_clips_per_cell=0)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    found = json.loads((tmp_path / "report.json").read_bytes(), parse_constant=refuse)
    assert found["score"]["low"] is None and found["per_class"][0]["auc"] is None
    assert found["items"] == evaluation["items"]


def test_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = write_report(classes_evaluation(), tmp_path, max_clips_per_cell=0)
    before = html.read_bytes()

    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as handle:
            handle.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OssicleError, match="No space left"):
        write_report({"task": "classes"}, tmp_path)
    assert html.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_errors_a_user_can_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sorting"):
        write_report({"task": "sorting"}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OssicleError, match="cannot be written"):
        write_report({"task": "classes"}, tmp_path / "file")


def test_progress_ends(sounds: Path, tmp_path: Path) -> None:
    for limit in (10**7, 30_000):
        seen: list[tuple[int, int]] = []
        write_report(
            classes_evaluation(),
            tmp_path,
            audio_root=sounds,
            max_audio_bytes=limit,
            progress=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert seen == sorted(set(seen)) and seen[-1] == (12, 12)


# Hostile names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", EVALUATIONS)
def test_hostile_texts_stay_texts(task: str, tmp_path: Path) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return value + HOSTILE if isinstance(value, str) and value else value

    clean = EVALUATIONS[task]()
    hostile = {**poison(clean), "task": task, "metric": clean["metric"]}
    page = read(write_report(hostile, tmp_path, max_clips_per_cell=0))
    plain_page = read(write_report(clean, tmp_path, max_clips_per_cell=0))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain_page.tags]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.data["clips"][0]["path"].endswith(HOSTILE)
    if task != "regression":
        assert any(clip["label"].endswith(HOSTILE) for clip in page.data["clips"])
    assert "".join(HOSTILE.split()) in "".join(page.words).replace(" ", "").replace("\u2028", "")


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        with open(sounds / name, "wb") as handle:  # noqa: PTH123 (bytes beyond UTF-8)
            soundfile.write(handle, tone(500, 0.2, 8000), 8000, format="WAV")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    evaluation = classes_evaluation()
    evaluation["items"][0]["path"] = evaluation["skipped"][0]["path"] = name
    page = read(write_report(evaluation, tmp_path, audio_root=sounds))
    carried_clip = next(c for c in page.data["clips"] if c["path"].startswith("caf"))
    assert carried_clip["media"] is not None
    assert "caf?.wav is empty" in page.text
    assert json.loads((tmp_path / "report.json").read_bytes())["items"][0]["path"] == "caf?.wav"


def test_no_home_folder_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    evaluation = classes_evaluation()
    for item in evaluation["items"]:
        item["path"] = f"/home/somebody/pond/{item['path']}"
    evaluation["audit"]["paths"] = {"2": "/home/somebody/2.wav", "3": "/home/somebody/3.wav"}
    evaluation["skipped"][0]["path"] = "/home/somebody/broken.wav"
    html = write_report(evaluation, tmp_path, max_clips_per_cell=1)
    assert "~/pond/0.wav" in html.read_text()
    assert "somebody" not in html.read_text() + (tmp_path / "report.json").read_text()


@pytest.mark.parametrize("task", EVALUATIONS)
def test_nothing_is_fetched(task: str, sounds: Path, tmp_path: Path) -> None:
    html = write_report(EVALUATIONS[task](), tmp_path, audio_root=sounds)
    page, text = read(html), html.read_text(encoding="utf-8")
    loading = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}
    assert not [a for _, a in page.tags if loading & set(a)]
    assert not re.findall(r"url\(|@import|https?://", re.sub(r'"(audio|image)": "[^"]*"', "", text))
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", page.scripts[-1])


# Which clips are listed and carried ------------------------------------------------------------

answers = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.floats(0, 1) | st.none()), max_size=40
)


@given(answers)
@settings(max_examples=60, deadline=None)
def test_cells_hold_what_the_matrix_counts(drawn: list[tuple[int, int, float | None]]) -> None:
    items = [{"label": CLASSES[a], "predicted": CLASSES[b], "probability": p} for a, b, p in drawn]
    lists = clip_lists("classes", CLASSES, items)
    expected = (
        confusion_matrix([a for a, _, _ in drawn], [b for _, b, _ in drawn], labels=range(3))
        if drawn
        else np.zeros((3, 3), int)
    )
    for a in range(3):
        for b in range(3):
            found = lists.get(f"{a},{b}")
            assert (len(found.clips) if found else 0) == expected[a, b]
            known = [p for _, p in found.clips if p is not None] if found else []
            assert known == sorted(known, reverse=a != b)
    errors = lists["errors"].clips if "errors" in lists else []
    assert len(errors) == expected.sum() - expected.trace()
    wanted = carried(lists, 2, "classes")
    assert len(set(wanted)) == len(wanted)
    wrong = [items[i]["label"] != items[i]["predicted"] for i in wanted]
    assert wrong == sorted(wrong, reverse=True)
    for a in range(3):
        cell = {i for i, _ in lists[f"{a},{a}"].clips} if f"{a},{a}" in lists else set()
        assert len(cell & set(wanted)) == min(2, len(cell))


def test_multilabel_lists() -> None:
    items = [
        {"label": ["bird"], "predicted": ["frog"], "probability": {"bird": 0.3, "frog": 0.9}},
        {"label": ["bird"], "predicted": [], "probability": {"bird": 0.1}},
        {"label": ["bird", "frog"], "predicted": ["frog", "bird"], "probability": [0.6, 0.7]},
        {"label": [], "predicted": ["frog"], "probability": [0.95]},
    ]
    lists = clip_lists("multilabel", CLASSES, items)
    assert lists["missed,0"].clips == [(1, 0.1), (0, 0.3)]
    assert lists["false,1"].clips == [(3, 0.95), (0, 0.9)]
    assert lists["found,0"].clips == [(2, 0.7)] and lists["found,1"].clips == [(2, 0.6)]
    assert {i for i, _ in lists["errors"].clips} == {0, 1, 3}
    assert [i for i, _ in lists["right"].clips] == [2]


def test_regression_lists_by_size_of_error() -> None:
    pairs = [(1.0, 1.5), (2.0, -3.0), (3.0, 3.1), (4.0, None)]
    items = [{"label": a, "predicted": b} for a, b in pairs]
    lists = clip_lists("regression", [], items)
    assert [i for i, _ in lists["errors"].clips] == [1, 0, 2]
    assert [i for i, _ in lists["right"].clips] == [2, 0, 1]


def test_long_lists_say_what_is_left_out(tmp_path: Path) -> None:
    evaluation = classes_evaluation()
    evaluation["items"] = [{**evaluation["items"][9], "path": f"{i}.wav"} for i in range(100)]
    page = read(write_report(evaluation, tmp_path, max_clips_per_cell=0))
    errors = page.data["lists"]["errors"]
    assert len(errors["clips"]) == LISTED and errors["left_out"] == 100 - LISTED


def test_size_bound_and_priority(sounds: Path, tmp_path: Path) -> None:
    evaluation = classes_evaluation()
    whole = read(write_report(evaluation, tmp_path, audio_root=sounds))
    sizes = [len(m["audio"]) + len(m["image"]) for m in whole.data["media"]]
    for limit in (0, min(sizes) - 1, 4 * max(sizes), sum(sizes), 10**9):
        page = read(write_report(evaluation, tmp_path, audio_root=sounds, max_audio_bytes=limit))
        media = page.data["media"]
        assert sum(len(m["audio"]) + len(m["image"]) for m in media) <= limit
        clips = page.data["clips"]
        assert len(clips) == 12  # listed whether carried or not
        if limit == 4 * max(sizes):
            assert all(c["media"] is not None for c in clips if not c["right"])
            assert any(c["media"] is None for c in clips if c["right"])
    assert len(media) == 12


def test_one_segment_is_carried_once(sounds: Path, tmp_path: Path) -> None:
    evaluation = classes_evaluation()
    for item in evaluation["items"]:
        item["path"] = "0.wav"
    page = read(write_report(evaluation, tmp_path, audio_root=sounds))
    assert len(page.data["media"]) == 1
    assert {clip["media"] for clip in page.data["clips"]} == {0}


def test_unreadable_clips_are_named_not_fatal(sounds: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    evaluation = classes_evaluation()
    evaluation["items"][10]["path"] = str(tmp_path / "text.wav")
    evaluation["items"][11]["path"] = "gone.wav"
    page = read(write_report(evaluation, tmp_path, audio_root=sounds))
    notes = {clip["path"]: clip["note"] for clip in page.data["clips"] if clip["media"] is None}
    assert set(notes) == {str(tmp_path / "text.wav"), "gone.wav"}
    assert all(note.startswith("cannot be played: ") for note in notes.values())


# Sound and picture -----------------------------------------------------------------------------


@pytest.mark.parametrize("sample_rate", [6000, 8000, 11025, 16000, 22050, 44100, 96000])
@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_sound_decodes_to_the_same(sample_rate: int, seconds: float) -> None:
    encoded = encode_sound(tone(1000, seconds, sample_rate), sample_rate)
    decoded, rate = soundfile.read(io.BytesIO(encoded))
    assert decoded.ndim == 1 and min(sample_rate, 16000) <= rate <= 16000
    assert len(decoded) / rate == pytest.approx(seconds, abs=1.5 / rate)
    if seconds == 1.0:
        spectrum = np.abs(np.fft.rfft(decoded * np.hanning(len(decoded))))
        assert np.argmax(spectrum) * rate / len(decoded) == pytest.approx(1000, abs=2)
        # MP3 at this quality keeps the level of a lone tone to about 1 dB.
        assert np.sqrt(np.mean(decoded**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.12)


def test_segments_and_long_files(tmp_path: Path) -> None:
    pieces = [tone(hz, 4.0, 8000) for hz in (300, 600, 900, 1200)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(pieces), 8000)
    evaluation = classes_evaluation()
    segments = [(None, None), (4.5, 7.5), (13.0, None), (4.0, 15.9)]
    evaluation["items"] = [
        {**item, "path": "long.wav", "onset": onset, "offset": offset}
        for item, (onset, offset) in zip(evaluation["items"], segments, strict=False)
    ]
    page = read(write_report(evaluation, tmp_path, audio_root=tmp_path))
    by_when = {clip["when"]: page.data["media"][clip["media"]] for clip in page.data["clips"]}
    expected = {"": 10.0, "4.5 to 7.5 s": 3.0, "from 13 s": 3.0, "4 to 15.9 s": 10.0}
    assert {when: medium["seconds"] for when, medium in by_when.items()} == expected
    assert [by_when[w]["is_cut"] for w in expected] == [True, False, False, True]
    for when, hz in (("4.5 to 7.5 s", 600), ("from 13 s", 1200)):
        decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(by_when[when]["audio"])))
        assert len(decoded) / rate == pytest.approx(3.0, abs=0.001)
        peak = np.argmax(np.abs(np.fft.rfft(decoded))) * rate / len(decoded)
        assert peak == pytest.approx(hz, abs=2)


@pytest.mark.parametrize("sample_rate", [8000, 44100, 192000])
def test_picture_is_small_and_shows_the_pitch(sample_rate: int) -> None:
    import librosa

    hz = sample_rate / 8
    encoded = spectrogram_image(tone(hz, 1.0, sample_rate), sample_rate)
    picture = Image.open(io.BytesIO(encoded))
    assert picture.size == PICTURE_SIZE and len(encoded) <= PICTURE_BYTES
    light = np.asarray(picture.convert("L"), dtype=float).mean(axis=1)
    share = librosa.hz_to_mel(hz) / librosa.hz_to_mel(sample_rate / 2)
    assert np.argmax(light) == pytest.approx(PICTURE_SIZE[1] * (1 - share), abs=2)


@pytest.mark.parametrize("n_samples", [1, 100, 160_000])
def test_picture_of_noise_silence_and_nearly_nothing(n_samples: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, n_samples)
    for samples in (noise, 0 * noise):
        encoded = spectrogram_image(samples, 16000)
        picture = Image.open(io.BytesIO(encoded))
        assert picture.size == PICTURE_SIZE and len(encoded) <= PICTURE_BYTES
    assert np.ptp(np.asarray(picture), axis=(0, 1)).max() <= 8  # silence is one colour


def test_picture_ends_where_the_model_hears(sounds: Path, tmp_path: Path) -> None:
    evaluation = classes_evaluation()
    for model_rate, top_hz in ((16000, 8000), (48000, 11025), (None, 11025)):
        evaluation["audio"]["sample_rate"] = model_rate
        page = read(write_report(evaluation, tmp_path, audio_root=sounds, max_clips_per_cell=1))
        assert {medium["top_hz"] for medium in page.data["media"]} == {top_hz}


# Words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.985, "98.5\u00a0%"),
        ("accuracy", 1.0, "100\u00a0%"),
        ("accuracy", 0.9996, "100\u00a0%"),
        ("accuracy", 0.0, "0\u00a0%"),
        ("map", 0.71349, "0.713"),
        ("r2", -0.0001, "0.000"),
        ("r2", -12.0, "−12"),
        ("mae", 12345.0, "12,345"),
        ("mae", 0.012345, "0.0123"),
        ("auc", float("nan"), "–"),
        ("auc", None, "–"),
        ("something", 0.5, "0.500"),
    ],
)
def test_scores_in_words(metric: str, value: float | None, text: str) -> None:
    assert format_score(metric, value) == text


def test_numbers_in_words() -> None:
    assert compact(44100.0) == "44,100" and compact(1e-7) == "1e−07" and compact(-2.5) == "−2.5"
    assert format_interval("accuracy", score(0.5)) == "47.0 to 53.0\u00a0%"
    assert format_interval("accuracy", {"low": None, "high": 1.0}) == ""
    assert labels_of(["b", "a"]) == ["b", "a"] and labels_of({"b", "a"}) == ["a", "b"]
    assert labels_of(None) == [] and labels_of(float("nan")) == [] and labels_of("10") == ["10"]


def test_verdict_names_the_protocol() -> None:
    found = verdict(classes_evaluation())
    assert found["value"] == "75.0\u00a0%" and found["meaning"] == "of clips right"
    assert found["interval"] == "95\u00a0% interval 72.0 to 78.0\u00a0%"
    assert "12 clips in 6 groups" in found["where"] and "had heard nothing" in found["where"]
    alone = classes_evaluation()
    alone["protocol"] |= {"n_groups": 12, "group_source": "none found"}
    assert "group" not in verdict(alone)["where"]
    assert verdict({"task": "classes"})["value"] == "No score"
    assert "worse" in verdict({"metric": "r2", "score": score(-0.2)})["meaning"]


def states(**changes: Any) -> dict[str, str]:
    """Title -> state of the checks of an evaluation in which all is well but for the changes."""
    fine = classes_evaluation() | {"skipped": [], "random_split": score(0.76)}
    fine["audit"] = {"n_clips": 12}
    fine["protocol"] |= {"n_clips": 40, "n_groups": 20}
    return {check["title"]: check["state"] for check in checks(fine | changes)}


def test_checks_warn_where_they_must() -> None:
    assert "warn" not in states().values()
    assert states()["Shuffled labels score at chance"] == "good"
    leaked = classes_evaluation()["audit"]
    cases = {
        "A random split would mislead here": {"random_split": score(0.9)},
        "Shuffled labels score above chance": {"shuffled_labels": score(0.6)},
        "Not better than guessing": {"score": score(0.34)},
        "The same sound in training and test": {"audit": leaked},
        "The same sound, two labels": {"audit": leaked},
        "1 silent clip": {"audit": leaked},
        "2 files left out": {"skipped": [{"path": "a"}, {"path": "b"}]},
        "Only 4 groups": {"protocol": {"n_clips": 9, "n_groups": 4, "group_source": "column 'a'"}},
        "No groups are known": {"protocol": {"n_clips": 9, "n_groups": 9}},
    }
    for title, changes in cases.items():
        assert states(**changes).get(title) == "warn", title
        assert title not in states()
    near_only = {"across_split": [{"a": 1, "b": 2, "kind": "near"}]}
    assert "warn" not in states(audit=near_only).values()
    # Without a known chance the score itself is the measure.
    multilabel = {"metric": "map", "chance": 0.0}
    assert states(**multilabel)["Shuffled labels score far lower"] == "good"
    assert states(**multilabel, score=score(0.35))["Shuffled labels do as well"] == "warn"


def test_controls_say_whose_they_are() -> None:
    """They are by ridge on frozen features, also beside a network that was trained."""
    titles = ("Shuffled labels score at chance", "A random split agrees")
    for name, is_other in (("ridge", False), ("fine-tuned", True), ("svm", True)):
        evaluation = classes_evaluation() | {"probe": {"name": name}, "score": score(0.8)}
        evaluation["random_split"] = score(0.8)
        found = {check["title"]: check["text"] for check in checks(evaluation)}
        assert ["a ridge on the frozen features" in found[t] for t in titles] == [is_other] * 2
        assert ("the same procedure" in found[titles[0]]) != is_other


def test_advice_leads_to_clips() -> None:
    evaluation = classes_evaluation()
    for item in evaluation["items"][9:]:
        item |= {"label": "bird", "predicted": "rain", "probability": 0.95}
    lists = clip_lists("classes", CLASSES, evaluation["items"])
    steps = advice(evaluation, lists)
    links = [link for step in steps for link in step["links"]]
    assert ("bird, taken for rain (3)", "0,2") in links
    assert any(key == "errors" for _, key in links)
    assert any("3 errors" in step["text"] for step in steps)
    assert "Twice the recordings would bring 5 points." in [step["text"] for step in steps]
    assert advice({"task": "classes"}, {}) == []


# Drawings --------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 9))
def test_ticks_enclose_their_range(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert ticks == sorted(set(ticks)) and 2 <= len(ticks) <= 2 * count + 2


def test_scale() -> None:
    scale = Scale([0.43, None, float("nan"), 0.98], (0, 1))
    assert 0 <= scale.low <= 0.43 and 0.98 <= scale.high <= 1
    assert scale(scale.low) == 0 and scale(scale.high) == 1 and scale(-5) == 0
    assert Scale([10, 1000], logarithmic=True)(100) == pytest.approx(0.5)
    assert 0 <= Scale([0.5, 0.5])(0.5) <= 1


def test_drawings_are_well_formed_and_tell_their_numbers() -> None:
    points = classes_evaluation()["learning_curve"]["points"]
    drawn = [
        strip_chart([(1, 0.7, HOSTILE), (2, 0.8, "a + b"), (2, 0.75, "b + c")], "auc", "a + b"),
        learning_chart(points, "accuracy"),
        learning_chart([{"n_train": 5, "score": 0.5}], "accuracy"),
        scatter_chart([(0, 1.0, 1.5), (7, -2.0, 30_000.0)]),
    ]
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.find("title") is not None and root.find("desc").text
        for circle in root.iter("circle"):
            assert 0 <= float(circle.get("cx")) <= float(root.get("viewBox").split()[2])
            assert 0 <= float(circle.get("cy")) <= float(root.get("viewBox").split()[3])
    assert "2 layers 0.800" in drawn[0] and "9 clips 70.0" in drawn[1]
    assert len(list(ElementTree.fromstring(drawn[0]).iter("circle"))) == 3
    heights = [float(c.get("cy")) for c in ElementTree.fromstring(drawn[1]).iter("circle")]
    assert heights[0] > heights[1]  # more clips, higher score
    assert learning_chart([{"n_train": 5, "score": None}], "accuracy") == ""


@pytest.mark.parametrize(("count", "size"), [(2, "large"), (20, "middle"), (50, "small")])
def test_matrix_sizes(count: int, size: str, tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(count)]
    confusion = {"classes": names, "matrix": np.eye(count, dtype=int)}
    page = read(write_report({"task": "classes", "confusion": confusion}, tmp_path))
    assert sum(a.get("role") == "gridcell" for _, a in page.tags) == count**2
    assert any(size in (a.get("class") or "") for tag, a in page.tags if tag == "table")


def test_a_matrix_of_very_many_classes_keeps_the_worst(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(100)]
    matrix = 5 * np.eye(100, dtype=int)
    matrix[97, 98] = 4
    page = read(
        write_report(
            {"task": "classes", "confusion": {"classes": names, "matrix": matrix}}, tmp_path
        )
    )
    told = [a["aria-label"] for _, a in page.tags if a.get("role") == "gridcell"]
    assert len(told) == 3600 and "class 97 taken for class 98: 4" in told
    assert "40 classes with fewer errors are not drawn" in page.text


def test_plain_keeps_paths_that_are_to_be_opened() -> None:
    odd = os.fsdecode(b"caf\xe9.wav")
    value = {"path": odd, "root": Path("a"), "x": (np.float32(1), float("inf"))}
    assert plain(value, safe=False) == {"path": odd, "root": "a", "x": [1.0, None]}
    assert plain(value)["path"] == "caf?.wav"


# A browser -------------------------------------------------------------------------------------


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
        window = running.chromium.launch(executable_path=found, args=flags)
        yield window
        window.close()


def test_in_a_browser(browser, sounds: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    evaluation = classes_evaluation()
    names = {"bird": "bird" + HOSTILE, "frog": "frog", "rain": "rain"}
    evaluation["classes"] = evaluation["confusion"]["classes"] = list(names.values())
    for entry in evaluation["items"]:
        entry["label"], entry["predicted"] = names[entry["label"]], names[entry["predicted"]]
    html = write_report(evaluation, tmp_path, audio_root=sounds)
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
    page.goto(html.as_uri())

    def panel() -> tuple[str, list[str]]:
        where = page.locator("#clips .where").all_inner_texts()
        return page.inner_text("#panel-title"), [text.split(" · ")[0] for text in where]

    # It opens with the errors, the surest first: probability rises with the number.
    assert panel() == ("All errors", ["11.wav", "10.wav", "9.wav"])
    page.click('td[data-list="0,1"]')
    title, paths = panel()
    # A browser shows the line separator in the label as a space or a line.
    assert title.startswith("bird</script><script>") and paths == ["9.wav"]
    # Not wait_for_function, whose waiting the page's own policy forbids.
    for _ in range(200):
        if page.evaluate("(document.querySelector('#clips audio')?.readyState ?? 0) >= 1"):
            break
        page.wait_for_timeout(50)
    assert page.evaluate("document.querySelector('#clips audio').readyState >= 1")
    duration = page.evaluate("document.querySelector('#clips audio').duration")
    assert duration == pytest.approx(0.3, abs=0.05)
    assert page.evaluate("document.querySelector('#clips img').naturalWidth") == PICTURE_SIZE[0]
    # The same by keyboard: from the chosen cell one to the left, onto the diagonal.
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert panel()[1] == ["0.wav", "3.wav", "6.wav"]
    # Sorting by class turns the rows around.
    first = "document.querySelector('.sortable tbody th').textContent"
    page.click(".sortable thead button >> nth=0")
    page.click(".sortable thead button >> nth=0")
    assert page.evaluate(first) == "rain"
    for width in (400, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
    assert wrong == []
