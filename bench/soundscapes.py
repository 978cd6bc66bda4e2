"""A clip model slid over soundscapes against detectors: `python bench/soundscapes.py`.

Writes docs/results/soundscapes.*. Soundscapes are mixed from ESC-10: folds 1 to 3 to learn from, 4
to choose by, 5 to report on, so that no recording of a test soundscape was heard before. Needs the
measuring data (OSSICLE_SHARED, default ../shared beside the repository). What is made is kept in
build/bench/soundscapes; --anew begins again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from ossicle.datasets.clips import read_clips
from ossicle.record import record, write_json
from ossicle.study.outputs import write_study

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench" / "soundscapes"
MIX = ["--n-train", "600", "--n-valid", "120", "--n-test", "200", "--seed", "0"]
INPUTS = ("mel", "features", "both")
COLUMNS = {
    "event F1, macro": ("event", "macro", "f1"),
    "event F1, micro": ("event", "micro", "f1"),
    "segment F1, macro": ("segment", "macro", "f1"),
    "PSDS 1": ("psds1", "psds"),
    "PSDS 2": ("psds2", "psds"),
    "best F1 at any threshold": ("threshold_free", "macro", "best_f1"),
}


def ossicle(*arguments: object) -> dict[str, Any]:
    """One verb in a process of its own: its answer, and the core seconds that it took."""
    command = [sys.executable, "-m", "ossicle.cli", *map(str, arguments), "--json"]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    core = after.children_user - before.children_user
    return {**answer, "core_s": core + after.children_system - before.children_system}


def soundscapes(data: Path) -> Path:
    """600, 120 and 200 soundscapes of ten seconds."""
    folder = FOLDER / "scapes"
    ossicle(
        *("mix", data / "esc10", "-o", folder, *MIX, "--workers", 1),
        *("--folds", r"/^(\d)-/", "--groups", r"/^\d-(\d+)/"),
        *("--valid-folds", "4", "--test-folds", "5"),
    )
    return folder


def clip_model(data: Path, scapes: Path) -> dict[str, Any]:
    """YAMNet, every layer, ridge on the clips of folds 1 to 3; the rest from validation."""
    clips = read_clips(data / "esc10", folds=r"/^(\d)-/", groups=r"/^\d-(\d+)/")
    some = clips.subset(clips.table["fold"].isin(["1", "2", "3"]).to_numpy())
    manifest = FOLDER / "clips.csv"
    some.to_csv(manifest)
    bundle = FOLDER / "clips.ossicle"
    trained = ossicle("train", manifest, "-o", bundle, "--quick", "--workers", 1)
    tuned = ossicle("tune", bundle, scapes, "-o", FOLDER / "tuned.ossicle", "--workers", 1)
    return {
        "scores": tuned["test"],
        "core_s": trained["core_s"] + tuned["core_s"],
        "window_s": tuned["detection"]["window_s"],
        "windows": tuned["account"]["windows"],
        "bundle": "tuned.ossicle",
    }


def detector(scapes: Path, inputs: str) -> dict[str, Any]:
    """A frame CRNN on log-mel, on the frames of frozen YAMNet, or on both."""
    bundle = FOLDER / f"{inputs}.ossicle"
    trained = ossicle(
        "train-detector", scapes, "-o", bundle, "--inputs", inputs, "--workers", 1, "--seed", 0
    )
    return {
        "scores": trained["scores"],
        "core_s": trained["core_s"],
        "epoch": trained["taken_after"],
        "bundle": bundle.name,
    }


def speed(scapes: Path, bundle: str) -> float:
    """Times real time of `detect` on the test soundscapes joined, one core, starting left out."""
    import numpy as np
    import soundfile

    paths = sorted((scapes / "test").glob("*.wav"))
    joined = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in paths])
    took = []
    for part in (joined[: len(joined) // 4], joined):
        file = FOLDER / "joined.wav"
        soundfile.write(file, part, 16_000)
        out = FOLDER / "found"
        command = ("detect", FOLDER / bundle, file, "-o", out, "--workers", 1, "--labels", "none")
        each = []
        for _ in range(2):
            shutil.rmtree(out, ignore_errors=True)  # or it would go on from the first
            each.append(ossicle(*command)["core_s"])
        took.append(min(each))
    file.unlink()
    shutil.rmtree(out)
    return float(0.75 * len(joined) / 16_000 / (took[1] - took[0]))


def told(value: dict[str, float | None]) -> str:
    """A score with its interval."""
    if value["value"] is None:
        return ""
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def table_of(kept: dict[str, Any]) -> pd.DataFrame:
    """A row for each way."""
    names = {
        "clips": "clip model slid over, windows and rules tuned",
        "mel": "detector on log-mel, nothing transferred",
        "features": "detector on frames of frozen yamnet",
        "both": "detector on both",
    }
    rows = []
    for key, name in names.items():
        row: dict[str, Any] = {"way": name}
        for column, where in COLUMNS.items():
            value: Any = kept[key]["scores"]
            for part in where:
                value = value[part]
            row[column] = told(value)
        row["minutes of a core to train"] = round(kept[key]["core_s"] / 60, 1)
        row["times real time, one core"] = round(kept[key]["speed"])
        rows.append(row)
    return pd.DataFrame(rows)


def classes_of(kept: dict[str, Any]) -> pd.DataFrame:
    """Event F1 by class."""
    keys = ("clips", "mel", "features", "both")
    by = {key: kept[key]["scores"]["event"]["per_class"] for key in keys}
    return pd.DataFrame(
        {"class": name, **{key: told(by[key][name]["f1"]) for key in by}} for name in by["clips"]
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true", help="make again what is kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    if arguments.anew:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "measured.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    scapes = soundscapes(data)
    for key in ("clips", *INPUTS):
        if key not in kept:
            start = time.perf_counter()
            made = clip_model(data, scapes) if key == "clips" else detector(scapes, key)
            kept[key] = made
            write_json(path, kept)
            took = time.perf_counter() - start
            print(f"{key}: {took:.0f} s", file=sys.stderr, flush=True)
    for key in kept:
        if "speed" not in kept[key]:
            kept[key]["speed"] = speed(scapes, kept[key]["bundle"])
            write_json(path, kept)
    rows = table_of(kept)
    about = json.loads((scapes / "mix.json").read_text())
    scores = kept["clips"]["scores"]
    best = max(INPUTS, key=lambda k: kept[k]["scores"]["psds1"]["psds"]["value"])
    pair = [kept[key]["scores"] for key in ("clips", best)]
    events = f"{scores['reference_events']} events of {len(scores['classes'])} classes"
    f1, psds = (
        f"{told(pair[0][a][b][c])} to {told(pair[1][a][b][c])}"
        if c
        else f"{told(pair[0][a][b])} to {told(pair[1][a][b])}"
        for a, b, c in (("event", "macro", "f1"), ("psds1", "psds", ""))
    )
    text = [
        "Soundscapes of ten seconds, mixed from ESC-10 (`ossicle mix`, seed 0): 600 from folds 1 "
        "to 3 to train on, 120 from fold 4 to choose weights, windows, thresholds and filters by, "
        f"200 from fold 5 to report on ({events}, {60 * scores['hours']:.0f} minutes). No "
        "recording is in two of the parts.",
        "Event F1: onset within 200 ms, offset within 200 ms or 20 % of the length. PSDS 1 and 2 "
        "as in DCASE 2023 task 4. Intervals (95 %) are over test soundscapes; these share the "
        "eighty clips of a fold, so that other clips would vary more.",
        "The clip model is YAMNet with every layer and a ridge, fitted on the 240 clips of folds "
        f"1 to 3 as they are; it hears windows of {kept['clips']['window_s']:g} s (chosen on "
        "validation, as its rules were) and never heard a mixture. The detectors learnt from "
        f"mixtures with times. From the one to the best of the others: event F1 {f1}; PSDS 1 "
        f"{psds}.",
    ]
    write_study(
        arguments.out,
        "soundscapes",
        title="Sounds in soundscapes: a clip model slid over them, and detectors",
        text=text,
        tables={"Scores": rows, "Event F1 by class": classes_of(kept)},
        figures={},
        result=kept,
        record=record({"mix": MIX, "settings": about.get("settings")}, seed=0),
        command="python bench/soundscapes.py",
    )


if __name__ == "__main__":
    main()
