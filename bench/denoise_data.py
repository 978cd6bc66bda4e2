"""What denoising is measured on: animals, people, drums and voices over rain, engines and streets.

Foreground: ESC-10 (dogs, roosters, babies, sneezes), drum kits of hydrogen-drumkits, game voices of
fillets-ng-data. Background: ESC-10 and UrbanSound8K. Both from the measuring data (OSSICLE_SHARED,
default ../shared beside the repository) and from Debian packages; each recording, kit and speaker
is in one part only, and so is each background either in noisy recordings or alone.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.benchmark.open_suite.voices import fish_lines
from ossicle.benchmark.packages import Packages
from ossicle.datasets.clips import Clips, read_clips
from ossicle.datasets.mixtures import Mixtures, MixtureSettings, write_mixtures
from ossicle.download import cache_dir

ROOT = Path(__file__).resolve().parents[1]
RATE = 22_050
LENGTH_S = 5.0
SEED = 0
COUNTS = {"train": 480, "valid": 100, "test": 160}
# Of the background against the foreground, dB: 10 to -5 dB the other way round.
LEVEL_DB = (-10.0, 5.0)
FOREGROUND_DB = -26.0  # as `datasets.mixtures.render` has it
ESC10 = {"dog_bark", "rooster", "baby_cry", "person_sneeze"}
NOISES = {"rain", "sea_waves", "helicopter"}
URBAN = {"street_music", "engine_idling", "air_conditioner", "drilling"}
LOOPS, LINES = 8, 40  # a kit, a speaker
FOLD_PARTS = {"1": "train", "2": "train", "3": "train", "4": "valid", "5": "test"}


def shared() -> Path:
    """Where the measuring data lie."""
    return Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"


def noisy_recordings(folder: Path) -> tuple[Mixtures, Path, Path]:
    """Mixtures in the parts train, valid and test, and what training is given of them.

    Returns:
        The mixtures (their clean parts are for scoring only), a manifest of the noisy recordings of
        train and valid, and one of noise alone, whose recordings are in no mixture.
    """
    foreground = _clips(_animals_and_people(shared()) + _drums(folder / "drums") + _voices())
    background = _backgrounds(shared())
    mixed = _clips([row for row in background if not row["alone"]])
    settings = MixtureSettings(
        sample_rate=RATE, duration_s=LENGTH_S, level_db=LEVEL_DB, use_split=True, seed=SEED
    )
    mixtures = write_mixtures(
        [foreground, mixed],
        folder / "mixtures",
        settings,
        counts=COUNTS,
        names=("foreground", "background"),
    )
    noisy = folder / "noisy.csv"
    table = mixtures.table[mixtures.table["split"].isin(["train", "valid"])]
    shown = table[["mixture", "split", "group"]].rename(columns={"mixture": "path"})
    shown.to_csv(noisy, index=False)
    noise = folder / "noise.csv"
    _write_noise([row for row in background if row["alone"]], folder / "noise").to_csv(
        noise, index=False
    )
    return mixtures, noisy, noise


def _clips(rows: list[dict[str, str]]) -> Clips:
    return read_clips(pd.DataFrame(rows), groups="group", labels="classes")


def _animals_and_people(data: Path) -> list[dict[str, str]]:
    return [
        {
            "path": str(path),
            "label": name,
            "group": f"esc10 {path.stem.split('-')[1]}",
            "split": FOLD_PARTS[path.name[0]],
        }
        for name in sorted(ESC10)
        for path in sorted((data / "esc10" / name).glob("*.ogg"))
    ]


def _voices() -> list[dict[str, str]]:
    """Lines of the two fish in Czech (to learn from, to choose by) and in Dutch (to test)."""
    packages = Packages(cache_dir() / "data" / "packages")
    rows = []
    for language in ("cs", "nl"):
        for number, (fish, by_level) in enumerate(sorted(fish_lines(packages, language).items())):
            part = "test" if language == "nl" else ("train", "valid")[number % 2]
            paths = [path for level in sorted(by_level) for path in by_level[level]]
            drawn = sorted(random.Random(f"{SEED} {language} {fish}").sample(paths, LINES))
            about = {"label": "voice", "group": f"fillets {language} {fish}", "split": part}
            rows += [{"path": str(path), **about} for path in drawn]
    return rows


def _drums(folder: Path) -> list[dict[str, str]]:
    """Strokes of a kit at even beats, some left out."""
    packages = Packages(cache_dir() / "data" / "packages")
    kits: dict[str, list[Path]] = {}
    for path in packages.audio("hydrogen-drumkits"):
        kits.setdefault(path.parent.name, []).append(path)
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (kit, paths) in enumerate(sorted(kits.items())):
        draw = random.Random(f"{SEED} {kit}")
        part = ("train", "train", "test", "valid")[number % 4]
        for loop in range(LOOPS):
            target = folder / f"{number:02d}_{loop}.wav"
            if not target.exists():
                strokes = draw.sample(paths, min(4, len(paths)))
                loop_of = _played(strokes, draw.uniform(0.15, 0.5), draw)
                audio.save(target, audio.Audio(loop_of[None], RATE))
            about = {"label": "drums", "group": f"kit {kit}", "split": part}
            rows.append({"path": str(target), **about})
    return rows


def _played(strokes: list[Path], beat_s: float, draw: random.Random) -> np.ndarray:
    loop = np.zeros(round(LENGTH_S * RATE), np.float32)
    sounds = [audio.load(path, sample_rate=RATE, offset=2.0).samples[0] for path in strokes]
    at = draw.uniform(0, 0.5)
    while at < LENGTH_S - 0.2:
        sound = sounds[draw.randrange(len(sounds))]
        start = round(at * RATE)
        length = min(len(sound), len(loop) - start)
        peak = float(np.abs(sound).max()) or 1.0
        loop[start : start + length] += sound[:length] / peak * draw.uniform(0.3, 1.0)
        at += beat_s * draw.randint(1, 3)
    return loop * np.float32(0.9 / max(1e-6, float(np.abs(loop).max())))


def _backgrounds(data: Path) -> list[dict[str, str]]:
    """Recordings of noise; of each class in train and valid, every other one is kept alone."""
    rows: list[dict[str, str]] = []
    for name in sorted(NOISES):
        for path in sorted((data / "esc10" / name).glob("*.ogg")):
            group = f"esc10 {path.stem.split('-')[1]}"
            rows.append(
                {
                    "path": str(path),
                    "label": name,
                    "group": group,
                    "split": FOLD_PARTS[path.name[0]],
                }
            )
    urban = data / "urbansound_2folds"
    table = pd.read_csv(urban / "metadata.csv", dtype=str)
    recordings = sorted(set(table[table["fold"] == "1"]["recording"]))
    for row in table[table["label"].isin(URBAN)].to_dict("records"):
        part = "test" if row["fold"] == "2" else "train"
        if part == "train" and recordings.index(row["recording"]) % 4 == 3:
            part = "valid"
        path, group = str(urban / row["file_name"]), f"urbansound {row['recording']}"
        rows.append({"path": path, "label": row["label"], "group": group, "split": part})
    # By class and part, so that neither kind lacks a class; a group is on one side.
    alone: dict[str, bool] = {}
    count: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["group"] not in alone:
            place = (row["label"], row["split"])
            alone[row["group"]] = count.get(place, 0) % 2 == 1
            count[place] = count.get(place, 0) + 1
    for row in rows:
        row["alone"] = "yes" if alone[row["group"]] and row["split"] != "test" else ""
    return rows


def _write_noise(rows: list[dict[str, str]], folder: Path) -> pd.DataFrame:
    """Noise alone, at levels drawn as those in the mixtures are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, row in enumerate(rows):
        target = folder / f"{number:03d}.wav"
        if not target.exists():
            samples = audio.load(row["path"], sample_rate=RATE).samples
            level = FOREGROUND_DB + random.Random(f"{SEED} {number}").uniform(*LEVEL_DB)
            rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean())) or 1.0
            samples = samples * np.float32(10 ** (level / 20) / rms)
            peak = max(1.0, float(np.abs(samples).max()) / 0.95)
            audio.save(target, audio.Audio(samples / np.float32(peak), RATE))
        written.append({"path": str(target), "split": row["split"], "group": row["group"]})
    return pd.DataFrame(written)
