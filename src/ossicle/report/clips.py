"""The clips that a report lists and carries: which, in what order, as sound and picture.

A *list* is what one click shows: a cell of the confusion matrix, the clips of one class that were
missed, or all errors. In lists of errors the surest error comes first, as it is the likeliest
wrong label; in lists of right answers the least sure.

Sounds are MP3: of what soundfile writes it is the one format that Chromium, Firefox and Safari all
play (Safari long refused Ogg), and at 16 kHz mono it is as small as Opus: about 3 kB a second.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import soundfile
import torch
from PIL import Image

from ossicle import audio
from ossicle.errors import OssicleError
from ossicle.frontend import LogMel
from ossicle.record import json_safe
from ossicle.report.words import labels_of, number

CLIP_S = 10.0
CLIP_RATE = 16000
PICTURE_SIZE = (320, 96)
PICTURE_BYTES = 12_000
# More than a person goes through; the rest is in report.json.
LISTED = 40
POINTS = 1500
_MP3_RATES = (8000, 11025, 12000, 16000)
_TOP_DB, _LEAST_DB = 70.0, 25.0


@dataclass
class ClipList:
    """What one click shows.

    Attributes:
        title: what the clips have in common.
        is_error: whether they are wrong answers.
        clips: (item number, probability of what is wrong or right about it, or None), in order.
    """

    title: str
    is_error: bool
    clips: list[tuple[int, float | None]] = field(default_factory=list)


def clip_lists(
    task: str, classes: Sequence[str], items: Sequence[Mapping[str, Any]]
) -> dict[str, ClipList]:
    """All lists of an evaluation, by key.

    Keys are "errors" and "right", then for "classes" "TRUE,PREDICTED" (positions in `classes`),
    for "multilabel" "missed,CLASS", "false,CLASS" and "found,CLASS". "regression" has "errors"
    (the largest error first) and "right" (the smallest first), both of all items.
    """
    index = {str(name): i for i, name in enumerate(classes)}
    lists: dict[str, ClipList] = {}

    def put(key: str, title: str, is_error: bool, item: int, probability: float | None) -> None:
        lists.setdefault(key, ClipList(title, is_error)).clips.append((item, probability))

    for i, item in enumerate(items):
        if task == "regression":
            if (error := _difference(item)) is not None:
                put("errors", "Largest errors", True, i, abs(error))
                put("right", "Smallest errors", False, i, abs(error))
            continue
        true, predicted = labels_of(item.get("label")), labels_of(item.get("predicted"))
        wrong = set(true) != set(predicted)
        alone = _probability(item, predicted[0]) if len(predicted) == 1 else None
        put(*(("errors", "All errors", True) if wrong else ("right", "All right", False)), i, alone)
        if task == "classes":
            if true and predicted and true[0] in index and predicted[0] in index:
                key = f"{index[true[0]]},{index[predicted[0]]}"
                told = f"{true[0]}, taken for {predicted[0]}" if wrong else f"{true[0]}, right"
                put(key, told, wrong, i, alone)
            continue
        for name in dict.fromkeys([*true, *predicted]):
            kind, told = "found", "{}, found"
            if name not in predicted:
                kind, told = "missed", "{}, missed"
            elif name not in true:
                kind, told = "false", "{}, false alarms"
            if name in index:
                title = told.format(name)
                put(f"{kind},{index[name]}", title, kind != "found", i, _probability(item, name))
    for key, some in lists.items():
        # Sure errors have a high probability, but what was missed has a low one.
        falling = some.is_error and not key.startswith("missed")
        sign, unknown = (-1 if falling else 1), math.inf
        some.clips.sort(key=lambda x: (unknown if x[1] is None else sign * x[1], x[0]))
    return lists


def carried(lists: Mapping[str, ClipList], max_per_list: int, task: str) -> list[int]:
    """The items to carry as sound, the most wanted first, `max_per_list` of a list.

    Errors come before right answers; within both, one of each list before the second of any.
    """
    wanted = []
    for key, some in lists.items():
        if key == "right" and task != "regression":
            continue
        # These two stand for many cells; all errors are what the page opens with.
        share = max_per_list * (10 if task == "regression" else 5 if key == "errors" else 1)
        for rank, (item, probability) in enumerate(some.clips[:share]):
            wanted.append((not some.is_error, rank, -(probability or 0.0), item))
    return list(dict.fromkeys(entry[-1] for entry in sorted(wanted)))


def page_data(
    evaluation: Mapping[str, Any],
    lists: Mapping[str, ClipList],
    *,
    audio_root: Path | None,
    max_clips_per_cell: int,
    max_audio_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """What the page's script needs: clips, the sounds carried, the lists.

    Args:
        evaluation: as in `ossicle.report.write_report`.
        lists: from `clip_lists`.
        audio_root: what relative paths refer to; None is the working folder.
        max_clips_per_cell: sounds carried for a list.
        max_audio_bytes: most characters that sounds and pictures may take in the page.
        progress: called with (clips done, clips in all).

    Returns:
        clips: path, when, label, predicted, right, group, fold, media (position or None), note;
        media: audio and image (base64), top_hz, seconds, is_cut; lists: key -> title, clips (clip,
        probability), left_out (clips not listed); points: item -> clip, for regression.
    """
    items, task = evaluation.get("items") or [], str(evaluation.get("task"))
    wanted = carried(lists, max_clips_per_cell, task)
    model_rate = (evaluation.get("audio") or {}).get("sample_rate")
    media: list[dict[str, Any]] = []
    of_segment: dict[tuple[Any, ...], int] = {}
    of_item: dict[int, int] = {}
    notes: dict[int, str] = {}
    room = max_audio_bytes
    for done, i in enumerate(wanted, 1):
        segment = _segment(items[i], audio_root)
        if segment not in of_segment:
            try:
                made = _medium(*segment, model_rate)
            except (OssicleError, OSError, ValueError) as error:
                # The reason is a line of text of its own; the path stands beside it.
                told = json_safe(getattr(error, "reason", None) or str(error))
                notes[i] = f"cannot be played: {told}"
                made = None
            if made is not None:
                room -= len(made["audio"]) + len(made["image"])
                if room < 0:
                    break
                of_segment[segment] = len(media)
                media.append(made)
        if segment in of_segment:
            of_item[i] = of_segment[segment]
        if progress is not None and done < len(wanted):
            progress(done, len(wanted))
    if progress is not None:
        progress(len(wanted), len(wanted))  # also where the room ended before

    clips: list[dict[str, Any]] = []
    position: dict[int, int] = {}

    def clip(i: int) -> int:
        if i not in position:
            position[i] = len(clips)
            clips.append(_describe(items[i], task, audio_root, of_item.get(i), notes.get(i, "")))
        return position[i]

    shown = {
        key: {
            "title": some.title,
            "clips": [(clip(i), probability) for i, probability in _listed(some, of_item)],
            "left_out": max(0, len(some.clips) - LISTED),
        }
        for key, some in lists.items()
    }
    points = {str(i): clip(i) for i in scatter_items(lists)} if task == "regression" else {}
    return {"task": task, "clips": clips, "media": media, "lists": shown, "points": points}


def scatter_items(lists: Mapping[str, ClipList]) -> list[int]:
    """The items that a scatter plot shows: the largest errors, then evenly from the rest."""
    order = [item for item, _ in lists["errors"].clips] if "errors" in lists else []
    if len(order) <= POINTS:
        return order
    worst, rest = order[: POINTS // 5], order[POINTS // 5 :]
    at = np.linspace(0, len(rest) - 1, POINTS - len(worst)).round().astype(int)
    return worst + [rest[i] for i in at]


def encode_sound(samples: np.ndarray, sample_rate: int) -> bytes:
    """MP3 of (N,) samples, mono, at 16 kHz or the next rate of MP3 above a lower one."""
    rate = next((known for known in _MP3_RATES if known >= sample_rate), CLIP_RATE)
    samples = audio.resample(samples, sample_rate, rate)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        rate,
        1,
        subtype="MPEG_LAYER_III",
        format="MP3",
        compression_level=0.5,
        bitrate_mode="VARIABLE",
    ) as file:
        file.write(samples)
    return buffer.getvalue()


def spectrogram_image(samples: np.ndarray, sample_rate: int) -> bytes:
    """WebP of a log-mel spectrogram of (N,) samples, 0 Hz to half the rate, below 12 kB."""
    width, height = PICTURE_SIZE
    n_fft = 1 << max(5, math.ceil(math.log2(0.045 * sample_rate)))
    hop_length = min(n_fft // 2, max(1, math.ceil(len(samples) / (2 * width))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # low rates leave some bands empty
        front_end = LogMel(sample_rate, n_fft, hop_length=hop_length, n_mels=height, top_db=_TOP_DB)
    waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None]
    decibels = front_end(waveform)[0, 0].numpy()
    # The quiet tenth is dark, so that the picture of a noise is not one bright field.
    floor = min(-_LEAST_DB, float(np.quantile(decibels, 0.1)))
    # A silent clip has one value everywhere; it is drawn dark.
    level = np.clip(1 - decibels / floor, 0, 1) if np.ptp(decibels) > 0 else 0 * decibels
    picture = Image.fromarray(level[::-1].astype(np.float32)).resize(
        PICTURE_SIZE, Image.Resampling.BILINEAR
    )
    colours = matplotlib.colormaps["cividis"](np.asarray(picture), bytes=True)[..., :3]
    for quality in (60, 40, 20, 5):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(colours)).save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= PICTURE_BYTES:
            break
    return buffer.getvalue()


def shown_path(path: str, audio_root: Path | None) -> str:
    """A path as the page shows it: below the root, or with the home folder as "~"."""
    if audio_root is not None:
        for root in (Path(audio_root), Path(audio_root).resolve()):
            if Path(path).is_relative_to(root):
                return Path(path).relative_to(root).as_posix()
    return json_safe(path)


def _listed(some: ClipList, of_item: Mapping[int, int]) -> Iterator[tuple[int, float | None]]:
    """The head of a list, those that can be heard first where right answers are only samples."""
    head = some.clips[:LISTED]
    if not some.is_error:
        head = sorted(head, key=lambda entry: entry[0] not in of_item)
    return iter(head)


def _segment(item: Mapping[str, Any], audio_root: Path | None) -> tuple[Path, float, float | None]:
    path = Path(str(item.get("path") or ""))
    if audio_root is not None:
        path = Path(audio_root) / path  # an absolute path stays what it is
    return path, number(item.get("onset")) or 0.0, number(item.get("offset"))


def _medium(path: Path, onset: float, offset: float | None, model_rate: Any) -> dict[str, Any]:
    # A little more than is kept tells whether anything is cut off.
    end = min(onset + CLIP_S + 0.05, math.inf if offset is None else offset)
    samples, rate = audio.load(path, onset=onset, offset=end)
    is_cut = samples.shape[1] > round((CLIP_S + 0.01) * rate)
    mono = samples[0, : round(CLIP_S * rate)]
    # The picture ends where the model's hearing does.
    seen = min(rate, int(number(model_rate) or rate))
    return {
        "audio": base64.b64encode(encode_sound(mono, rate)).decode("ascii"),
        "image": base64.b64encode(spectrogram_image(audio.resample(mono, rate, seen), seen)).decode(
            "ascii"
        ),
        "top_hz": seen / 2,
        "seconds": round(len(mono) / rate, 3),
        "is_cut": is_cut,
    }


def _describe(
    item: Mapping[str, Any], task: str, audio_root: Path | None, medium: int | None, note: str
) -> dict[str, Any]:
    onset, offset = number(item.get("onset")), number(item.get("offset"))
    when = ""
    if onset or offset is not None:
        end = "" if offset is None else f" to {offset:.4g}"
        when = f"from {onset or 0:.4g} s" if not end else f"{onset or 0:.4g}{end} s"
    difference = _difference(item) if task == "regression" else None
    true, predicted = (
        ", ".join(labels_of(item.get(key))) or "none" for key in ("label", "predicted")
    )
    return {
        "path": shown_path(str(item.get("path") or ""), audio_root),
        "when": when,
        "label": true,
        "predicted": predicted,
        "right": None if task == "regression" else true_equals(item),
        "difference": None if difference is None else f"{difference:+.3g}".replace("-", "−"),
        "group": _text(item.get("group")),
        "fold": _text(item.get("fold")),
        "media": medium,
        "note": note,
    }


def true_equals(item: Mapping[str, Any]) -> bool:
    """Whether an item's labels are what was predicted."""
    return set(labels_of(item.get("label"))) == set(labels_of(item.get("predicted")))


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(json_safe(value))


def _probability(item: Mapping[str, Any], name: str) -> float | None:
    """Of one class; `probability` is a number, one for each predicted label, or by class."""
    given = item.get("probability")
    if isinstance(given, Mapping):
        return number(given.get(name))
    predicted = labels_of(item.get("predicted"))
    if isinstance(given, Sequence) and not isinstance(given, str):
        known = dict(zip(predicted, given, strict=False))
        return number(known.get(name))
    return number(given) if name in predicted else None


def _difference(item: Mapping[str, Any]) -> float | None:
    true, predicted = number(item.get("label")), number(item.get("predicted"))
    return None if true is None or predicted is None else predicted - true
