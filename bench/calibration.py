"""Which calibration? `python bench/calibration.py` writes docs/results/calibration.*.

Cross-validated probabilities of a ridge on frozen YAMNet features, all layers, under each
calibration. Needs the measuring data: the folder `data` in OSSICLE_SHARED (default: ../shared
beside the repository).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle.datasets.clips import read_clips
from ossicle.features import extract
from ossicle.metrics.reliability import reliability
from ossicle.model import create_model
from ossicle.record import json_safe, record, write_json
from ossicle.transfer.isotonic import CALIBRATIONS, recalibrate
from ossicle.transfer.protocol import choose_protocol
from ossicle.transfer.ridge import RidgeProbe

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results"
SETS = {
    "esc10": {"groups": r"/^\d-(\d+)-/"},
    "urbansound_2folds": {"groups": "recording"},
    "speech_commands_6": {"groups": "speaker"},
    "snoring": {"groups": "runs:20"},
}
SHOWN = {
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "ece_mass": "calibration error, equal mass",
    "ece_width": "calibration error, equal width",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}


def measure(folder: Path, how: dict[str, str]) -> dict[str, Any]:
    """Reliability under each calibration, on the same folds and fits."""
    clips = read_clips(folder, **how)
    table = extract(create_model("yamnet", pretrained=True), clips)
    clips = clips.subset(table.index)
    protocol, X, y = choose_protocol(clips), table.matrix(), clips.y()
    answers = {kind: np.zeros((len(y), len(clips.classes))) for kind in CALIBRATIONS}
    for train, test in protocol.folds:
        probe = RidgeProbe(task="classes")
        probe.fit(X[train], y[train], groups=protocol.groups[train], block_sizes=table.sizes())
        for kind in CALIBRATIONS:  # "none", which changes the probe, comes last
            calibrated = recalibrate(probe, kind, y[train])
            told = probe.predict_proba(X[test])
            answers[kind][np.ix_(test, probe.classes_)] = (
                told if calibrated is None else calibrated(told)
            )
    rows = protocol.tested
    return {
        kind: reliability("classes", y[rows], p[rows], clips.classes, groups=protocol.groups[rows])
        for kind, p in answers.items()
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown."""

    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
        return f"{value:.3f}"

    lines = [f"| set | calibration | {' | '.join(SHOWN.values())} |", f"|{'---|' * 8}"]
    for name, kinds in found.items():
        for kind, result in kinds.items():
            cells = [shown(result[key]) for key in SHOWN]
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all sets and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared"))
    found = {}
    for name, how in SETS.items():
        found[name] = measure(shared / "data" / name, how)
        print(name, {k: round(r["nll"]["value"], 3) for k, r in found[name].items()}, flush=True)
    result = {"sets": found, "record": record(vars(arguments), seed=0)}
    write_json(OUT / "calibration.json", json_safe(result))
    machine = result["record"]["platform"]
    text = (
        "# Which calibration?\n\n"
        f"`python bench/calibration.py`, one core of {machine['cpu']}, seed 0. A ridge on all "
        "layers of frozen YAMNet; each clip is answered by a probe that has heard nothing of its "
        "group, calibrated inside the training part. In brackets 95 % intervals over groups. Less "
        "is better in the last four columns.\n\n"
    )
    (OUT / "calibration.md").write_text(text + table(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
