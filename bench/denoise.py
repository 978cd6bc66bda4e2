"""A partitioned autoencoder against spectral gates: `python bench/denoise.py`.

Writes docs/results/denoise.*. What is made is kept in build/bench/denoise; --anew begins again.
Needs the measuring data (OSSICLE_SHARED) and Debian packages: see bench/denoise_data.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from denoise_data import COUNTS, RATE, ROOT, SEED, noisy_recordings

from ossicle import bundle
from ossicle.denoise.data import Recordings, read_recordings
from ossicle.denoise.fit import fit_partitioned_autoencoder, fit_spectral_gate
from ossicle.denoise.score import IDEAL, NOISY, score_denoisers, summary
from ossicle.denoise.settings import PAPER, AutoencoderSettings, GateSettings
from ossicle.record import record, write_json
from ossicle.separators.base import Separator
from ossicle.study.outputs import write_study

FOLDER = ROOT / "build" / "bench" / "denoise"
GATE = GateSettings(sample_rate=RATE, n_valid=100, seed=SEED)
BANDS = AutoencoderSettings(sample_rate=RATE, seed=SEED, output="mask")
SCORES = {
    "SI-SDR, dB": "si_sdr",
    "improvement, dB": "si_sdr_improvement",
    "log-spectral distance, dB": "log_spectral_distance",
}
GATES = ("gate_stationary", "gate_running")
NAMES = {
    "gate_stationary": "gate, stationary",
    "gate_running": "gate, running",
    "paper": "partitioned autoencoder as in the paper, masked",
    "paper_decoded": "partitioned autoencoder as in the paper, decoded",
    "bands_without_remixing": "on mel bands, loss of the paper, masked",
    "bands_not_taught": "on mel bands, remixing without a teacher, masked",
    "bands_decoded": "on mel bands, remixing, taught by a gate, decoded",
    "bands_alone": "on mel bands, remixing, taught by a gate, masked, no gate in its mask",
    "bands": "on mel bands, remixing, taught by a gate, masked, with a gate as far as chosen",
}


def trained(name: str, recordings: Recordings) -> tuple[Separator, float]:
    """A denoiser of noisy recordings and noise alone, and the core-seconds that it took."""
    path = FOLDER / f"{name}.ossicle"
    before = time.process_time()
    if name.startswith("gate"):
        kind = name.removeprefix("gate_")
        found: Separator = fit_spectral_gate(recordings, replace(GATE, kinds=(kind,)))
    else:
        settings = {
            "paper": replace(PAPER, sample_rate=RATE, n_valid=30, output="mask", seed=SEED),
            "bands_without_remixing": replace(
                BANDS, remix=0.0, colour_db=0.0, penalty=1.0, gates=(0.0,)
            ),
            "bands_not_taught": replace(BANDS, teacher="none"),
            "bands": BANDS,
        }[name]
        found = fit_partitioned_autoencoder(recordings, settings, folder=FOLDER / f"{name}.run")
    core_s = time.process_time() - before
    bundle.save(found, path)
    return found, core_s


def told(value: dict[str, float | None]) -> str:
    """A score with its interval."""
    if value["value"] is None:
        return ""
    if value["low"] is None:
        return f"{value['value']:.2f}"
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def table_of(kept: dict[str, Any]) -> pd.DataFrame:
    """A row for each way."""
    names = {NOISY: "noisy, as it is", IDEAL: "ideal ratio mask, which knows the clean part"}
    rows = []
    for found in kept["scores"]["rows"]:
        key = found["system"]
        row: dict[str, Any] = {"way": names.get(key) or NAMES[key]}
        row |= {title: told(found[name]) for title, name in SCORES.items()}
        core_s = kept["core_s"].get(key)
        row["core minutes to train"] = "" if core_s is None else f"{core_s / 60:.1f}"
        speed = found["times_real_time"]
        row["times real time, one thread"] = "" if speed is None else f"{speed:.0f}"
        rows.append(row)
    return pd.DataFrame(rows)


def differences_of(kept: dict[str, Any]) -> pd.DataFrame:
    """Each way less the better gate, on the same recordings."""
    rows = []
    for one in kept["scores"]["against_the_best_gate"]:
        if one["one"] == IDEAL:
            continue
        value = {"value": one["difference"], "low": one["low"], "high": one["high"]}
        rows.append(
            {
                "way": NAMES[one["one"]],
                "less": NAMES[one["other"]],
                "score": one["score"].replace("_", " "),
                "difference, dB": told(value),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true", help="make again what is kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.anew:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "measured.json"
    used = {"bands": asdict(BANDS), "paper": asdict(PAPER), "gate": asdict(GATE)}
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"core_s": {}}
    mixtures, noisy, noise = noisy_recordings(FOLDER)
    recordings = read_recordings(noisy, noise=noise, groups="group")
    systems: dict[str, Separator] = {}
    for name in (*GATES, "bands", "bands_not_taught", "paper", "bands_without_remixing"):
        if name not in kept["core_s"] or not (FOLDER / f"{name}.ossicle").exists():
            kept.pop("scores", None)
            _, kept["core_s"][name] = trained(name, recordings)
            write_json(path, kept)
            print(f"{name}: {kept['core_s'][name]:.0f} s", file=sys.stderr, flush=True)
    for name in NAMES:
        bare = name.removesuffix("_decoded").removesuffix("_alone")
        found = bundle.load_separator(FOLDER / f"{bare}.ossicle")
        if name.endswith("_decoded"):
            found.output = "decoded"  # type: ignore[assignment]
        if name.endswith("_alone"):
            found.gate, found.exponent = 0.0, 2.0  # type: ignore[assignment]
        systems[name] = found
    kept["chosen"] = {name: one.info["chosen"] for name, one in systems.items()}
    if "scores" not in kept:
        scores, source = score_denoisers(systems, mixtures.part("test"))
        kept["scores"] = summary(scores, source, seed=SEED)
        write_json(path, kept)
    best = next(one["other"] for one in kept["scores"]["against_the_best_gate"])
    of = {
        (one["one"], one["score"]): told(
            {"value": one["difference"], "low": one["low"], "high": one["high"]}
        )
        for one in kept["scores"]["against_the_best_gate"]
    }
    text = [
        f"Noisy recordings of five seconds: {COUNTS['train']} to learn from, {COUNTS['valid']} to "
        f"choose by, {COUNTS['test']} to report on, their foreground 5 dB below to 10 dB above the "
        "noise while it sounds. Foreground: dogs, roosters, babies, sneezes (ESC-10), drums "
        "(hydrogen-drumkits), voices (fillets-ng-data). Background: rain, sea, helicopters (ESC-10)"
        ", street music, idling engines, air conditioners, drills (UrbanSound8K). No recording, "
        "kit or speaker is in two of the parts, and no background is both in a noisy recording and "
        f"alone ({len(recordings.noise)} recordings of noise alone).",
        "Neither gate nor autoencoder was given a clean part: weights and all settings, the gates' "
        "too, are those of the best alignment without clean recordings (docs/denoise.md) on the "
        "noisy recordings and the noise that were kept to choose by. The clean parts of the test "
        "recordings are for scoring. Intervals (95 %) are over groups of test recordings.",
        "Teaching: a running gate takes the foreground out of the noisy recordings; from that, "
        "mixed with other noise, the autoencoder learns. The second time it is its own teacher. "
        "That a running gate teaches, that bands are whitened and the noise is matched was settled "
        "on the validation mixtures with their clean parts in view, in some eight trials; the test "
        "recordings were not looked at.",
        f"The autoencoder on mel bands, taught, less the better gate ({NAMES[best]}): SI-SDR "
        f"{of['bands', 'si_sdr']} dB, log-spectral distance {of['bands', 'log_spectral_distance']} "
        "dB (the lower the better).",
    ]
    write_study(
        arguments.out,
        "denoise",
        title="Noise out of recordings without a clean one: partitioned autoencoder and gates",
        text=text,
        tables={"Scores": table_of(kept), "Against the better gate": differences_of(kept)},
        figures={},
        result=kept,
        record=record(used, seed=SEED),
        command="python bench/denoise.py",
    )


if __name__ == "__main__":
    main()
