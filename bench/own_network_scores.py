"""Scores of networks over several sets of clips at once: evaluated, kept, and compared in pairs.

Symbols: A networks, T sets, n clips, R resamples.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from line import TASKS
from scipy.stats import norm
from scipy.stats import t as student

from ossicle.benchmark.entries import identity
from ossicle.line import pick_model
from ossicle.record import write_json
from ossicle.study.crossed import Crossed

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench" / "own_network"
RESAMPLES = 2000
METRIC = "accuracy"


class Network(NamedTuple):
    """What is evaluated.

    Attributes:
        title: what it is called.
        backbone: a name, or a bundle.
        options: of `ossicle evaluate`, besides the backbone.
    """

    title: str
    backbone: str
    options: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """Words of the command line."""
        return ["--backbone", self.backbone, *self.options]

    def identity(self) -> str:
        """A name for its numbers: another bundle of that name is another network."""
        return _identity(self.backbone, self.options)


@lru_cache
def _identity(backbone: str, options: tuple[str, ...]) -> str:
    model = pick_model(backbone, random="--random" in options)
    return hashlib.sha256(f"{identity(model)} {options}".encode()).hexdigest()[:16]


class Set(NamedTuple):
    """Labelled clips and how they are split.

    Attributes:
        name: short.
        clips: the folder or manifest.
        options: of `ossicle evaluate`.
        shown: the path that a command names.
    """

    name: str
    clips: Path
    options: tuple[str, ...]
    shown: str

    def checksum(self) -> str:
        """Of a manifest's text, since tasks may be drawn anew; folders stay what they are."""
        return hashlib.sha256(self.clips.read_bytes()).hexdigest() if self.clips.is_file() else ""


def five_sets() -> list[Set]:
    """The measuring sets, with the protocols of bench/line.py; those that there are.

    The folder `data` in OSSICLE_SHARED holds them (default: ../shared beside the repository).
    """
    data = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared")) / "data"
    return [
        Set(name, data / name, tuple(options), f"../shared/data/{name}")
        for name, (options, _) in TASKS.items()
        if (data / name).is_dir()
    ]


def dev_sets(folder: Path) -> list[Set]:
    """The development tasks that `own_network_tasks.py` wrote."""
    return [
        Set(path.stem, path, ("--labels", "classes"), f"build/own/dev/{path.name}")
        for path in sorted(folder.glob("*.csv"))
    ]


def evaluated(network: Network, clips: Set, workers: int = 1) -> dict[str, Any]:
    """What `ossicle evaluate` says of a network on a set; kept, and found again.

    Returns:
        Its answer with "command" and "report", the folder with the answers clip by clip.
    """
    command = ["ossicle", "evaluate", clips.shown, *clips.options, *network.words]
    asked = {"of": network.identity(), "clips": clips.checksum(), "command": shlex.join(command)}
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    report = FOLDER / "evaluated" / f"{clips.name}-{key}"
    kept = report / "answer.json"
    if not kept.is_file():
        words = ["evaluate", str(clips.clips), *clips.options, *network.words]
        words += ["--quick", "--json", "--workers", str(workers), "--out", str(report)]
        run = subprocess.run(
            [sys.executable, "-m", "ossicle.cli", *words],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
        )
        write_json(kept, {**asked, "answer": json.loads(run.stdout.splitlines()[-1])})
        print(f"{clips.name}: {network.title}", file=sys.stderr, flush=True)
    told = json.loads(kept.read_text(encoding="utf-8"))
    return {**told["answer"], "command": f"{told['command']} --quick --json", "report": report}


class Scored:
    """A networks on T sets: each clip's answer, and what it would be on other clips.

    Within a set, groups are resampled, the same for all networks; sets are resampled each by
    itself and stay those they are, so that the intervals are of these sets, not of sets at large.

    Args:
        reports: network -> set -> folder of its `report.json`; all have the same sets. Clips
            that one network could not read are left out for all.
    """

    def __init__(self, reports: Mapping[str, Mapping[str, Path]]) -> None:
        self.networks = list(reports)
        self.sets = list(next(iter(reports.values()))) if reports else []
        self.crossed: dict[str, Crossed] = {}
        self.n_clips: dict[str, int] = {}
        for number, name in enumerate(self.sets):
            told = [_items(reports[network][name]) for network in self.networks]
            common = [item for item in told[0] if all(item in other for other in told)]
            labels, groups = zip(*(told[0][item][:2] for item in common), strict=True)
            classes = sorted({*labels, *(one[item][2] for one in told for item in common)})
            index = {label: i for i, label in enumerate(classes)}
            y = np.array([index[label] for label in labels])
            decisions = np.zeros((len(told), 1, len(common), len(classes)), np.float32)
            for a, one in enumerate(told):
                chosen = [index[one[item][2]] for item in common]
                decisions[a, 0, np.arange(len(common)), chosen] = 1.0
            self.n_clips[name] = len(common)
            self.crossed[name] = Crossed(
                "classes",
                y,
                decisions,
                classes,
                np.array(groups),
                n_resamples=RESAMPLES,
                # Another stream for each set: draws of two sets must not go together.
                seed=number,
                metrics=(METRIC,),
            )

    def _weights(self, of: Mapping[str, float]) -> np.ndarray:
        return np.array([of.get(name, 0.0) for name in self.networks])

    def on(self, name: str, of: Mapping[str, float]) -> dict[str, float]:
        """A weighted sum of networks' scores on one set, with its interval."""
        return self.crossed[name].contrast(METRIC, self._weights(of))

    def mean(self, of: Mapping[str, float]) -> dict[str, float]:
        """The mean over all sets of a weighted sum of networks' scores, with its interval.

        The sets' variances add up, over T squared; the degrees of freedom of the sum are
        Satterthwaite's (1946, Biometrics Bulletin 2, 110-114), as in
        ``ossicle.benchmark.suite_scores``.

        Args:
            of: network -> weight: {"a": 1} is a score, {"a": 1, "b": -1} a paired difference.
        """
        values, variances, freedoms = [], [], []
        for name in self.sets:
            crossed = self.crossed[name]
            value, drawn, freedom = crossed.draws(METRIC, self._weights(of))
            variance = float(np.nanvar(drawn))
            if variance < 1e-24:
                # All groups agree, of which resampling makes a certainty that it is not.
                alone = self.on(name, of)
                reach = student.ppf(0.975, max(freedom, 1))
                variance = float(np.nan_to_num((alone["high"] - alone["low"]) / 2 / reach)) ** 2
            values.append(value)
            variances.append(variance)
            freedoms.append(max(freedom, 1))
        value, variance = float(np.mean(values)), float(np.sum(variances))
        below = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
        deviation = float(np.sqrt(variance)) / len(values)
        freedom = variance**2 / below if below > 0 else float("inf")
        reach = float(student.ppf(0.975, freedom)) * deviation
        up = sum(weight for weight in of.values() if weight > 0)
        down = sum(weight for weight in of.values() if weight < 0)
        return {
            "value": value,
            "low": max(value - reach, down),
            "high": min(value + reach, up),
            "deviation": deviation,
            "freedom": freedom,
            "n_sets": len(values),
        }

    def mean_draws(self, networks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(A,) means over sets and (R, A) what they would be on other clips, the same for all.

        As wide as the intervals of ``mean``: few groups widen a t interval, and so the draws.
        """
        drawn = []
        for name in self.sets:
            each = [self.crossed[name].draws(METRIC, self._weights({n: 1.0})) for n in networks]
            drawn.append(np.stack([one[1] for one in each], axis=1))
        values = np.array([self.mean({name: 1.0})["value"] for name in networks])
        both = np.mean(drawn, axis=0)
        # One factor for all, or what networks share would no longer cancel in differences.
        fewest = min(self.mean({name: 1.0})["freedom"] for name in networks)
        widened = student.ppf(0.975, fewest) / norm.ppf(0.975)
        return values, values + (both - both.mean(axis=0)) * widened


def _items(report: Path) -> dict[str, tuple[str, str, str]]:
    """Clip -> label, group, what it was taken for."""
    told = json.loads((report / "report.json").read_text(encoding="utf-8"))
    if told["task"] != "classes":
        raise SystemExit(f"{report}: one class a clip is expected, not {told['task']}")
    return {
        f"{item['path']} {item['onset']} {item['offset']}": (
            str(item["label"]),
            str(item["group"]),
            str(item["predicted"]),
        )
        for item in told["items"]
    }


def scored(
    networks: Sequence[Network], sets: Sequence[Set], workers: int = 1
) -> tuple[Scored, dict[str, dict[str, dict[str, Any]]]]:
    """All networks on all sets, and network -> set -> answer."""
    answers = {n.title: {s.name: evaluated(n, s, workers) for s in sets} for n in networks}
    reports = {
        title: {name: answer.pop("report") for name, answer in of.items()}
        for title, of in answers.items()
    }
    return Scored(reports), answers


def told(score: Mapping[str, float], sign: bool = False, digits: int = 4) -> str:
    """A score or a difference with its interval."""
    form = f"{'+' if sign else ''}.{digits}f"
    low, high = format(score["low"], form), format(score["high"], form)
    return f"{format(score['value'], form)} ({low} to {high})"
