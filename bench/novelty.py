"""What notices an unheard class? `python bench/novelty.py` writes docs/results/novelty.*.

Scores of novelty on frozen YAMNet features: each class left out in turn (near), and sounds of other
sets (far). Needs the measuring data: the folder `data` in OSSICLE_SHARED (default: ../shared beside
the repository).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp, softmax

from ossicle.datasets.clips import Clips, read_clips
from ossicle.features import extract
from ossicle.metrics import interval
from ossicle.model import create_model
from ossicle.record import json_safe, record, write_json
from ossicle.transfer import novelty_fit
from ossicle.transfer.diagnose import sample_rows
from ossicle.transfer.inner_folds import inner_folds
from ossicle.transfer.isotonic import logits_of
from ossicle.transfer.novelty_fit import last_layer, memberships
from ossicle.transfer.protocol import choose_protocol
from ossicle.transfer.ridge import RidgeProbe
from ossicle.transfer.span import Span
from ossicle.transfer.unheard import leave_classes_out

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results"
# name, how it is read, whether the scores were chosen on it
SETS = (
    ("esc10", {"groups": r"/^\d-(\d+)-/"}, True),
    ("urbansound_2folds", {"groups": "recording"}, True),
    ("speech_commands_6", {"groups": "speaker"}, True),
    ("snoring", {"groups": "runs:20"}, True),
    ("fsdd", {"groups": r"/_([a-z]+)_/"}, False),
)
# The same kinds of sound are in both.
ALIKE = ({"esc10", "urbansound_2folds"}, {"speech_commands_6", "fsdd"}, {"esc10", "snoring"})
MAX_CLIPS, FOREIGN, NEIGHBOURS = 800, 150, 5
USED = "distance and entropy (used)"
METHODS = (
    USED,
    "distance: relative Mahalanobis, and what lies outside",
    "the same on all layers",
    "relative Mahalanobis (Ren et al. 2021)",
    "Mahalanobis, and what lies outside",
    "Mahalanobis (Lee et al. 2018)",
    "5th nearest neighbour, cosine (Sun et al. 2022)",
    "length outside the subspace",
    "ViM (Wang et al. 2022)",
    "maximum probability (Hendrycks & Gimpel 2017)",
    "entropy of the answer",
    "energy (Liu et al. 2020)",
)
Scores = dict[str, np.ndarray]


class Data(NamedTuple):
    """A set of clips and its features."""

    clips: Clips
    X: np.ndarray  # (n, D) all layers
    sizes: list[int]
    first: int  # where the last layer begins
    last: list[int]


def read(folder: Path, name: str, how: dict[str, str]) -> Data:
    """Features of all layers; of many clips a sample."""
    clips = read_clips(folder / name, **how)
    clips = clips.subset(sample_rows(clips.y(), MAX_CLIPS, clips.task, 0))
    table = extract(create_model("yamnet", pretrained=True), clips)
    first, last = last_layer(table.names(), table.sizes())
    return Data(clips.subset(table.index), table.matrix(), table.sizes(), first, last)


def scorer(data: Data, train: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """All scores, fitted on rows of the data: (m, D) features -> name -> (m,)."""
    y, groups = data.clips.y()[train], data.clips.groups()[train]
    X, shares = data.X[train], memberships(y, "classes")
    L = X[:, data.first :]
    with_all = novelty_fit._fit(X, shares, data.sizes, novelty_fit.MAX_RANK)
    with_last = novelty_fit._fit(L, shares, data.last, novelty_fit.MAX_RANK)
    buffers = {name: value.double().numpy() for name, value in with_last.named_buffers()}
    span = Span(L, data.last)

    def project(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates, whitened ones, and the squared length outside."""
        z = (columns.astype(np.float64) - span.mean) * span.inverse_scale
        u = z @ buffers["basis"]
        return u, u @ buffers["whiten"], np.maximum((z**2).sum(1) - (u**2).sum(1), 0)

    u_train, _, rest_train = project(L)
    unit_train = u_train / np.linalg.norm(u_train, axis=1, keepdims=True)
    probe, unsure = None, 0.0
    if len(np.unique(y)) > 1:
        probe = RidgeProbe(task="classes").fit(X, y, groups=groups, block_sizes=data.sizes)
        # ViM: the residual on the scale of the largest logits of the training clips.
        alpha = probe.logits(X).max(1).mean() / np.sqrt(rest_train).mean()
        fold = inner_folds(y, groups, n_folds=novelty_fit.INNER_FOLDS)
        known = novelty_fit._held_out_distances(L, shares, fold, data.last, novelty_fit.MAX_RANK)
        doubt = novelty_fit.entropies(logits_of(probe.held_out_proba_, "classes"), "classes")
        unsure = novelty_fit.scale_of(known, doubt)

    def told(features: np.ndarray) -> Scores:
        columns = features[:, data.first :]
        u, v, rest = project(columns)
        near = ((v[:, None] - buffers["centres"]) ** 2).sum(2).min(1)
        whole = ((v @ buffers["total"]) ** 2).sum(1)
        outside = buffers["outside"][0] * rest
        similar = np.sort((u / np.linalg.norm(u, axis=1, keepdims=True)) @ unit_train.T, axis=1)
        distance, entropy = novelty_fit._distances(with_last, columns), np.zeros(len(features))
        logits = np.zeros((len(features), 1)) if probe is None else probe.logits(features)
        if probe is not None:
            entropy = novelty_fit.entropies(logits, "classes")
        values = [
            distance + unsure * entropy,
            distance,
            novelty_fit._distances(with_all, features),
            near - whole,
            near + outside / novelty_fit.OUTSIDE,
            near,
            -similar[:, -NEIGHBOURS],
            rest,
        ]
        if probe is not None:
            energy = -logsumexp(logits, axis=1)
            sure = softmax(logits, axis=1).max(1)
            values += [alpha * np.sqrt(rest) + energy, -sure, entropy, energy]
        return dict(zip(METHODS, values, strict=False))

    return told


def near(data: Data) -> dict[str, Any]:
    """Method -> what `leave_classes_out` says; None for each where there are too few classes."""
    clips, cache = data.clips, {}
    protocol = choose_protocol(clips)
    truth = clips.y()[:, None] == np.arange(len(clips.classes))

    def score(method: str, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        key = train.tobytes() + test.tobytes()
        if key not in cache:
            cache[key] = scorer(data, train)(data.X[test])
        return cache[key][method]

    result: dict[str, Any] = {}
    for method in METHODS:
        result[method] = leave_classes_out(
            truth,
            protocol.groups,
            protocol.folds,
            lambda train, test, method=method: score(method, train, test),
            clips.classes,
        )
    return result


def far(data: Data, others: dict[str, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """Foreign set -> method -> AUC of its clips against held-out clips of the first fold."""
    clips = data.clips
    protocol = choose_protocol(clips)
    train, test = protocol.folds[0]
    fitted = scorer(data, train)
    known = fitted(data.X[test])

    def area(score: np.ndarray, new: np.ndarray) -> float:
        a, b = score[new == 1][:, None], score[new == 0]
        return float(((a > b) + 0.5 * (a == b)).mean()) if a.size and b.size else float("nan")

    result: dict[str, dict[str, dict[str, float]]] = {}
    for name, features in others.items():
        foreign = fitted(features)
        groups = [*protocol.groups[test], *(f"{name} {i}" for i in range(len(features)))]
        new = np.r_[np.zeros(len(test)), np.ones(len(features))]
        result[name] = {}
        for method, scores in foreign.items():
            values = np.r_[known[method], scores]
            low, high = interval(
                area, values, new, groups=groups, n_resamples=300, bounds=(0.0, 1.0)
            )
            result[name][method] = {"value": area(values, new), "low": low, "high": high}
    return result


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: the methods, the sets' areas near and far."""

    def shown(score: dict[str, float] | None) -> str:
        if score is None:
            return "-"
        return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"

    asked = [name for name in found if found[name]["near"][USED]]
    lines = [
        "## Near: each class left out in turn",
        "",
        "Area under the ROC curve, mean over classes, with its 95 % interval over groups; in the "
        "last line the share of the unheard that is noticed where 95 % of the known are accepted, "
        "for the score that is used.",
        "",
        f"| score | {' | '.join(asked)} |",
        f"|---|{'---|' * len(asked)}",
    ]
    for method in METHODS:
        cells = [shown(found[name]["near"][method]["auc"]) for name in asked]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    noticed = [shown(found[name]["near"][USED]["noticed"]) for name in asked]
    lines += [f"| noticed at 95 % | {' | '.join(noticed)} |", ""]
    lines += ["## Far: sounds of another set", ""]
    lines += [
        f"At most {FOREIGN} clips of another set, against held-out clips of the first fold. "
        "Below 0.5, the score is surer of the foreign sound than of the known.",
        "",
    ]
    pairs = [(known, other) for known in found for other in found[known]["far"]]
    lines += [
        f"| score | {' | '.join(f'{a}: {b}' for a, b in pairs)} |",
        f"|---|{'---|' * len(pairs)}",
    ]
    for method in METHODS:
        cells = [shown(found[a]["far"][b].get(method)) for a, b in pairs]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all sets and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=[name for name, _, _ in SETS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT.parent / "shared"))
    data = {
        name: read(shared / "data", name, how) for name, how, _ in SETS if name in arguments.sets
    }
    rng = np.random.default_rng(0)
    foreign = {
        name: one.X[np.sort(rng.permutation(len(one.X))[:FOREIGN])] for name, one in data.items()
    }
    found: dict[str, dict[str, Any]] = {}
    for name, one in data.items():
        others = {o: X for o, X in foreign.items() if o != name and {o, name} not in ALIKE}
        found[name] = {"near": near(one), "far": far(one, others), "n_clips": len(one.X)}
        print(name, found[name]["near"][USED] and found[name]["near"][USED]["auc"], flush=True)
    result = {"sets": found, "record": record(vars(arguments), seed=0)}
    write_json(OUT / "novelty.json", json_safe(result))
    machine = result["record"]["platform"]
    fresh = ", ".join(name for name, _, chosen in SETS if name in data and not chosen)
    text = (
        "# What notices a sound that was never heard?\n\n"
        f"`python bench/novelty.py`, one core of {machine['cpu']}, seed 0. Frozen YAMNet features, "
        f"at most {MAX_CLIPS} clips of a set. The scores look at the last layer (mean, maximum and "
        f"bands) in {novelty_fit.MAX_RANK} dimensions, covariances shrunk by "
        f"{novelty_fit.SHRINKAGE}; the answers come from a ridge on all layers. "
        "The first score is what `ossicle train` puts into a bundle. Its parts were chosen by such "
        f"tables on the other sets; {fresh or 'none of these'} had no part in that. A set of two "
        "classes has no near column: one class left out leaves nothing to tell apart.\n\n"
    )
    (OUT / "novelty.md").write_text(text + table(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
