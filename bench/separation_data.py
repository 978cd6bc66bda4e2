"""Mixtures that separation is measured on: speech in noise, and drums with a melody.

Speech: Debian packages (each speaker in one part only) and the Free Spoken Digit Dataset. Noise:
ESC-10 and UrbanSound8K from the measuring data (OSSICLE_SHARED, default ../shared beside the
repository), each recording in one part only. Drums: loops of our own, played by the kits of the
open suite. Melodies: notes of our own, played by the instruments of the open suite's SoundFonts.
"""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.benchmark.build import build_task, read_built
from ossicle.benchmark.open_suite import telephone
from ossicle.benchmark.open_suite.recipes import RECIPES
from ossicle.benchmark.open_suite.voices import FISH_PACKAGES, fish_lines
from ossicle.benchmark.packages import Packages
from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.mixtures import Mixtures, MixtureSettings, write_mixtures
from ossicle.download import cache_dir

ROOT = Path(__file__).resolve().parents[1]
RATE = 8000
LENGTH_S = 4.0
COUNTS = {"train": 480, "valid": 100, "test": 200}
CLIPS_A_SPEAKER = 60
NOISES = {
    "esc10": ("rain", "sea_waves", "helicopter", "chainsaw", "fire_crackling"),
    "urbansound_2folds": ("air_conditioner", "engine_idling", "drilling", "jackhammer", "siren"),
}
LOOPS = 16  # a kit, or an instrument
SEED = 0
# Sixteenths of a bar in which an instrument of the kit is likely struck.
PATTERN = {
    "kick": {0: 1.0, 8: 0.8, 6: 0.3, 10: 0.4, 3: 0.2, 14: 0.2},
    "snare": {4: 0.95, 12: 0.95, 7: 0.15, 9: 0.15, 15: 0.15},
    "closed_hat": {i: 0.9 if i % 2 == 0 else 0.35 for i in range(16)},
    "open_hat": {14: 0.3, 2: 0.1},
    "clap": {12: 0.3},
    "ride": {i: 0.15 for i in range(0, 16, 4)},
    "crash": {0: 0.1},
    "rim": {11: 0.15},
    "tom": {13: 0.2, 14: 0.2, 15: 0.2},
}


def shared() -> Path:
    """Where the measuring data lie."""
    return Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"


def speech_in_noise(folder: Path) -> Mixtures:
    """Speakers against rain, sea, engines and machines, -5 to 5 dB; four seconds each."""
    packages = Packages(cache_dir() / "data" / "packages")
    speech = _clips(_speech(packages, folder / "gsm"), folder / "speech")
    noise = _clips(_noise(shared()), folder / "noise")
    settings = MixtureSettings(
        sample_rate=RATE, duration_s=LENGTH_S, join=True, shares=(3, 1, 2), seed=SEED
    )
    return write_mixtures(
        [speech, noise], folder / "speech_noise", settings, counts=COUNTS, names=("speech", "noise")
    )


def drums_with_melody(folder: Path) -> Mixtures:
    """Drum loops against melodies, -5 to 5 dB; kits and instruments are in one part only."""
    tasks = cache_dir() / "data"
    for name in ("drums", "instrument"):
        build_task(RECIPES[name], tasks)
    strokes, notes = (read_built(tasks, name).clips.table for name in ("drums", "instrument"))
    drums = _clips(_loops(strokes, folder / "loops"), folder / "drums")
    melody = _clips(_melodies(notes, folder / "melodies"), folder / "melody")
    settings = MixtureSettings(sample_rate=RATE, duration_s=LENGTH_S, shares=(3, 1, 2), seed=SEED)
    return write_mixtures(
        [drums, melody], folder / "drums_melody", settings, counts=COUNTS, names=("drums", "melody")
    )


def _clips(rows: list[dict[str, str]], folder: Path) -> Clips:
    """The clips, as links in one folder: what is drawn depends on names, not on where they lie."""
    table = []
    for row in rows:
        source = Path(row["path"])
        group = "".join(c if c.isalnum() else "_" for c in row["group"])
        mark = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
        name = f"{group}/{source.stem}-{mark}{source.suffix}"
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(source)
        table.append({**row, "path": name})
    manifest = folder / "clips.csv"
    pd.DataFrame(table).drop_duplicates("path").to_csv(manifest, index=False)
    return read_clips(manifest, groups="group", labels="classes")


def _drawn(paths: list[Path], most: int, purpose: str) -> list[Path]:
    """At most so many, the same at each run."""
    return sorted(random.Random(f"{SEED} {purpose}").sample(paths, min(most, len(paths))))


def _speech(packages: Packages, folder: Path) -> list[dict[str, str]]:
    """Path, label and group (the speaker) of what is spoken."""
    by_speaker: dict[str, list[Path]] = {}
    for language in FISH_PACKAGES:
        for fish, by_level in fish_lines(packages, language).items():
            paths = [path for level in sorted(by_level) for path in by_level[level]]
            by_speaker[f"fillets {language} {fish}"] = paths
    for voice in telephone.VOICES:
        found = telephone.prompts(packages, voice)
        names = _drawn(sorted(found), CLIPS_A_SPEAKER, voice.package)
        paths = [telephone.playable(found[name], name, voice, folder) for name in names]
        # One person may have read several languages.
        by_speaker.setdefault(f"asterisk {voice.speaker}", []).extend(paths)
    for path in packages.audio("kajongg"):
        if path.parent.name.startswith(("female", "male")):
            speaker = f"kajongg {path.parent.parent.name} {path.parent.name}"
            by_speaker.setdefault(speaker, []).append(path)
    for path in sorted((shared() / "fsdd").rglob("*.flac")):
        by_speaker.setdefault(f"fsdd {path.stem.split('_')[1]}", []).append(path)
    return [
        {"path": str(path), "label": "speech", "group": speaker}
        for speaker, paths in sorted(by_speaker.items())
        for path in _drawn(paths, CLIPS_A_SPEAKER, speaker)
    ]


def _noise(data: Path) -> list[dict[str, str]]:
    """Path, label and group (the recording) of what makes a noise."""
    rows = []
    for name in NOISES["esc10"]:
        for path in sorted((data / "esc10" / name).glob("*.ogg")):
            rows.append({"path": path, "label": name, "group": f"esc10 {path.stem.split('-')[1]}"})
    urban = data / "urbansound_2folds"
    table = pd.read_csv(urban / "metadata.csv", dtype=str)
    for row in table[table["label"].isin(NOISES["urbansound_2folds"])].to_dict("records"):
        path, group = urban / row["file_name"], f"urbansound {row['recording']}"
        rows.append({"path": path, "label": row["label"], "group": group})
    return [{**row, "path": str(row["path"])} for row in rows]


def _loops(strokes: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """Drum loops of each kit that has a bass drum and a snare."""
    rows = []
    for kit, members in strokes.groupby("group"):
        sounds: dict[str, list[np.ndarray]] = {}
        for row in members.sort_values("path").to_dict("records"):
            sounds.setdefault(row["label"], []).append(_mono(row["path"], 2.0))
        if not {"kick", "snare"} <= set(sounds):
            continue
        for number in range(LOOPS):
            draw = np.random.default_rng([SEED, number, *str(kit).encode()])
            rows.append(_saved(_loop(sounds, draw), folder, "drums", str(kit), number))
    return rows


def _loop(sounds: dict[str, list[np.ndarray]], draw: np.random.Generator) -> np.ndarray:
    """A bar, drawn once, that is repeated with small changes; one sound for each instrument."""
    step = 60 / draw.uniform(85, 150) / 4
    kit = {name: some[draw.integers(len(some))] for name, some in sorted(sounds.items())}
    bar = [
        (place, name)
        for name in kit
        for place, chance in PATTERN[name].items()
        if draw.random() < chance
    ]
    begin = draw.integers(16)
    events = []
    for bars in range(int(LENGTH_S / (16 * step)) + 2):
        for place, name in bar:
            if draw.random() < 0.95:
                at = (16 * bars + place - begin) * step
                events.append((at, draw.uniform(0.6, 1.0), kit[name]))
    return _played(events)


def _melodies(notes: pd.DataFrame, folder: Path) -> list[dict[str, str]]:
    """Melodies of each instrument, by all SoundFonts that have it; it is the group."""
    rows = []
    table = notes.assign(program=[str(group).split(":")[1] for group in notes["group"]])
    for program, members in table.groupby("program"):
        fonts = [
            [_mono(path, 3.0) for path in sorted(part["path"])]
            for _, part in members.groupby("group")
            if len(part) >= 4
        ]
        for number in range(LOOPS if fonts else 0):
            draw = np.random.default_rng([SEED, number, *str(program).encode()])
            melody = _melody(fonts[draw.integers(len(fonts))], draw)
            rows.append(_saved(melody, folder, "melody", f"program {program}", number))
    return rows


def _melody(notes: list[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """Notes, one or two at once, that last until the next and fade."""
    beat = 60 / draw.uniform(85, 150)
    at, events = 0.0, []
    while at < LENGTH_S:
        length = beat * draw.choice([0.5, 1.0, 1.5, 2.0])
        for _ in range(1 + (draw.random() < 0.3)):
            note = notes[draw.integers(len(notes))]
            n = min(len(note), round((length + 0.15) * RATE))
            fade = min(n, round(0.15 * RATE))
            part = note[:n].copy()
            part[n - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
            events.append((at, draw.uniform(0.6, 1.0), part))
        at += length
    return _played(events)


def _played(events: list[tuple[float, float, np.ndarray]]) -> np.ndarray:
    """(N,) of sounds (s, gain, samples), with a peak of 0.9."""
    made = np.zeros(round(LENGTH_S * RATE), np.float32)
    for at, gain, samples in events:
        start = round(at * RATE)
        part = samples[max(0, -start) : max(0, len(made) - start)]
        made[max(0, start) : max(0, start) + len(part)] += np.float32(gain) * part
    return made * np.float32(0.9 / max(1e-6, float(np.abs(made).max())))


def _mono(path: str, longest_s: float) -> np.ndarray:
    samples = audio.load(path, sample_rate=RATE).samples[0][: round(longest_s * RATE)]
    return samples / max(1e-6, float(np.abs(samples).max()))


def _saved(
    samples: np.ndarray, folder: Path, label: str, group: str, number: int
) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "_" for c in group)
    path = folder / f"{name}-{number:02d}.flac"
    audio.save(path, audio.Audio(samples[None], RATE))
    return {"path": str(path), "label": label, "group": group}


TASKS = {"speech_noise": speech_in_noise, "drums_melody": drums_with_melody}
