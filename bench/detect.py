"""Memory, speed and endurance of `ossicle detect`: `python bench/detect.py`.

Writes docs/results/detect.*. Needs the measuring data (OSSICLE_SHARED, default ../shared beside the
repository) and 6 GB of disk in build/bench/detect, which it gives back. Run it on a machine that
does nothing else. What is measured is kept in build/bench/detect; --only PART measures one of
memory, speed and kill again, --anew all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from ossicle.audio import load
from ossicle.datasets.clips import read_clips
from ossicle.detect.journal import NAME as JOURNAL
from ossicle.record import record, write_json
from ossicle.study.outputs import write_study

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench" / "detect"
RATE = 16_000
TABLES = ("events.csv", "events.parquet", "files.csv")
KILLS = 20
OVERLAPS = (0.0, 0.5, 0.75, 0.9)
PARTS = ("memory", "speed", "kill")


def sounds(data: Path, limit: int = 120) -> list[np.ndarray]:
    """Some ESC-10 clips at 16 kHz."""
    clips = read_clips(data / "esc10")
    rows = np.sort(np.random.default_rng(0).permutation(len(clips))[:limit])
    return [load(p, sample_rate=RATE).samples[0] for p in clips.table["path"].iloc[rows]]


def write_recording(path: Path, seconds: float, clips: list[np.ndarray], seed: int) -> None:
    """Clips in a random order with pauses of faint noise, 16-bit WAV."""
    draw = np.random.default_rng(seed)
    left = round(seconds * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        while left > 0:
            pause = 1e-3 * draw.standard_normal(draw.integers(0, 5 * RATE)).astype(np.float32)
            for piece in (pause, 0.5 * clips[draw.integers(len(clips))]):
                file.write(piece[:left])
                left -= len(piece[:left])


def run(arguments: list[str], workers: int = 1) -> dict[str, float]:
    """One `ossicle detect` in a process of its own: its wall time, core time and peak memory."""
    command = [sys.executable, "-m", "ossicle.cli", "detect", *arguments]
    command += ["--workers", str(workers), "--json"]
    code = (
        "import json, resource, subprocess, sys\n"
        f"done = subprocess.run({command!r}, capture_output=True, text=True)\n"
        "use = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, done.stdout[-4000:], done.stderr[-2000:],\n"
        "    use.ru_maxrss / 1024, use.ru_utime + use.ru_stime]))\n"
    )
    start = time.perf_counter()
    # A process between: the peak of children is the largest of all that there ever were.
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    status, printed, told, peak, core = json.loads(out.stdout)
    if status:
        raise SystemExit(told)
    answer = json.loads(printed.strip().splitlines()[-1])
    return {
        "wall_s": seconds,
        "core_s": core,
        "peak_mib": peak,
        "sound_s": answer["seconds"],
        "events": answer["events"],
    }


def fresh(name: str) -> Path:
    """An empty folder for results."""
    folder = FOLDER / "out" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def memory(bundle: str, clips: list[np.ndarray]) -> dict[str, Any]:
    """Peaks for ten minutes, a day, and ten thousand recordings."""
    rows = {}
    ten = FOLDER / "ten_minutes.wav"
    write_recording(ten, 600, clips, 1)
    rows["10 minutes"] = run([bundle, str(ten), "-o", str(fresh("ten"))])
    rows["10 minutes, two workers"] = run([bundle, str(ten), "-o", str(fresh("ten"))], workers=2)
    day = FOLDER / "day.wav"
    write_recording(day, 86_400, clips, 2)
    rows["24 hours"] = run([bundle, str(day), "-o", str(fresh("day"))])
    day.unlink()
    short = FOLDER / "short"
    shutil.rmtree(short, ignore_errors=True)
    short.mkdir()
    draw = np.random.default_rng(3)
    for number in range(10_000):
        write_recording(short / f"{number:05d}.wav", draw.uniform(1, 6), clips, 10 + number)
    rows["10,000 short files"] = run([bundle, str(short), "-o", str(fresh("short"))])
    shutil.rmtree(short)
    shutil.rmtree(FOLDER / "out")
    return rows


def speed(bundle: str, clips: list[np.ndarray], rounds: int = 3) -> dict[str, Any]:
    """Times real time on one core, by difference of two lengths: starting Python is left out."""
    paths = {}
    for minutes in (10, 70):
        paths[minutes] = FOLDER / f"speed_{minutes}.wav"
        write_recording(paths[minutes], 60 * minutes, clips, minutes)
    found = []
    for way in ("--no-shared", "--shared") * rounds:
        pair = {m: run([bundle, str(p), "-o", str(fresh(f"s{m}")), way]) for m, p in paths.items()}
        hour = 3600.0
        found.append(
            {
                "windows": way,
                "times_real_time_core": hour / (pair[70]["core_s"] - pair[10]["core_s"]),
                "times_real_time_wall": hour / (pair[70]["wall_s"] - pair[10]["wall_s"]),
                "with_start_wall": 4200 / pair[70]["wall_s"],
            }
        )
    overlaps: dict[str, dict[str, float]] = {}
    for way in ("--no-shared", "--shared"):
        overlaps[way] = {}
        for overlap in OVERLAPS:
            command = [bundle, str(paths[10]), "-o", str(fresh("o")), "--overlap", str(overlap)]
            overlaps[way][str(overlap)] = run([*command, way])["core_s"]
    for path in paths.values():
        path.unlink()
    shutil.rmtree(FOLDER / "out")
    return {"rounds": found, "core_s_of_10_minutes_by_overlap": overlaps}


def kill(bundle: str, clips: list[np.ndarray]) -> dict[str, Any]:
    """kill -9 at random moments, each time gone on with; the tables against a whole run's."""
    folder = FOLDER / "night"
    folder.mkdir(exist_ok=True)
    for number, seconds in enumerate([900, 5, 2400, 61, 30, 1200, 8, 3, 300, 45]):
        write_recording(folder / f"{number}.wav", seconds, clips, 100 + number)
    arguments = [bundle, str(folder), "--labels", "none", "--scores"]
    whole = fresh("whole")
    took = run([*arguments, "-o", str(whole)], workers=2)["wall_s"]
    out = fresh("killed")
    draw = random.Random(0)
    command = [sys.executable, "-m", "ossicle.cli", "detect", *arguments, "-o", str(out)]
    killed, at = 0, []
    while killed < KILLS:
        process = subprocess.Popen(
            [*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not (out / JOURNAL).exists() and process.poll() is None:
            time.sleep(0.005)
        # Later than a start takes, now and then, so that something is done each time.
        wait = draw.uniform(0, 0.5 * took)
        with_suppressed_timeout(process, wait)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
            at.append(round(wait, 3))
            process.wait()
        else:
            # It came through before: from the beginning again.
            shutil.rmtree(out)
    run([*arguments, "-o", str(out)], workers=1)
    scores = sorted(p.relative_to(whole) for p in (whole / "scores").rglob("*.parquet"))
    files = [*map(Path, TABLES), *scores]
    same = {str(f): (whole / f).read_bytes() == (out / f).read_bytes() for f in files}
    shutil.rmtree(FOLDER / "out")
    shutil.rmtree(folder)
    return {"killed": killed, "seconds_waited": at, "same_bytes": same}


def with_suppressed_timeout(process: subprocess.Popen, seconds: float) -> None:
    """Wait for a process, but no longer than that."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def pages(kept: dict[str, Any]) -> tuple[list[str], dict[str, pd.DataFrame]]:
    """What was found, and the tables."""
    rows = pd.DataFrame(kept["memory"]).T.rename_axis("recordings").reset_index()
    base = kept["memory"]["10 minutes"]["peak_mib"]
    rows["of 10 minutes' peak"] = rows["peak_mib"] / base
    rounds = pd.DataFrame(kept["speed"]["rounds"])
    ways = {way: part["times_real_time_core"] for way, part in rounds.groupby("windows")}
    each, shared = (
        f"{ways[way].median():.0f} times real time ({ways[way].min():.0f} to {ways[way].max():.0f})"
        for way in ("--no-shared", "--shared")
    )
    by_overlap = kept["speed"]["core_s_of_10_minutes_by_overlap"]
    same = kept["kill"]["same_bytes"]
    text = [
        f"Peak memory: {base:.0f} MiB for ten minutes; "
        + ", ".join(
            f"{r['peak_mib']:.0f} MiB for {name} ({r['peak_mib'] / base:.2f} of it)"
            for name, r in kept["memory"].items()
            if name != "10 minutes"
        )
        + ".",
        "One core, WAV 16 kHz, windows of one second of which each hears half of the one before, "
        "reading, network, read-out of every layer and events included, the start of Python left "
        f"out: {each} where every window is a clip of its own, {shared} with `--shared`, windows "
        f"read out of the same maps (medians of {len(rounds) // 2} runs each, in turn, and their "
        "range).",
        "Ten minutes at an overlap of "
        + ", ".join(f"{o:g}" for o in OVERLAPS)
        + ": "
        + " s, ".join(f"{by_overlap['--no-shared'][str(o)]:.1f}" for o in OVERLAPS)
        + " s of one core where every window is a clip of its own; with `--shared`, windows read "
        "out of the same maps, "
        + " s, ".join(f"{by_overlap['--shared'][str(o)]:.1f}" for o in OVERLAPS)
        + " s (the start of Python, about three seconds, in each).",
        f"Killed {kept['kill']['killed']} times with signal 9 at random moments and gone on with: "
        f"{sum(same.values())} of {len(same)} files (tables and frame scores) are the same bytes "
        "as those of a run that was let through.",
    ]
    return text, {"Memory": rows, "Speed": rounds}


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="parts to measure anew")
    parser.add_argument("--anew", action="store_true", help="measure again what is kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "measured.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    bundle = FOLDER / "esc10.ossicle"
    if not bundle.exists():
        command = [sys.executable, "-m", "ossicle.cli", "train", str(data / "esc10"), "--quick"]
        subprocess.run([*command, "-o", str(bundle)], check=True, stdout=subprocess.DEVNULL)
    clips = sounds(data)
    parts = {"memory": memory, "speed": speed, "kill": kill}
    for name in PARTS:
        if arguments.anew or name in (arguments.only or ()) or name not in kept:
            kept[name] = parts[name](str(bundle), clips)
            write_json(path, kept)
            print(name, kept[name], file=sys.stderr, flush=True)
    text, tables = pages(kept)
    write_study(
        arguments.out,
        "detect",
        title="Long recordings: memory, speed, endurance",
        text=text,
        tables=tables,
        figures={},
        result=kept,
        record=record({}, seed=0),
        command="python bench/detect.py",
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
