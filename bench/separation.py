"""Systems that know their sources against each other: `python bench/separation.py`.

Writes docs/results/separation.*. Two tasks, speech in noise and drums with a melody
(`separation_data`), the same mixtures for all systems; what can be chosen is chosen on the part
"valid", and everything is reported on "test", whose speakers, noises, kits and instruments are in
no other part. What is made is kept in build/bench/separation; --anew begins again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import separation_data
import torch
from scipy.stats import t as student

from ossicle import bundle
from ossicle.datasets.mixtures import Mixtures
from ossicle.features import one_thread
from ossicle.record import json_safe, record, write_json
from ossicle.separate.fit_nmf import NMFSettings, fit_nmf
from ossicle.separate.fit_unfolded import UnfoldedSettings, unfolded
from ossicle.separate.score import IDEAL, MIXTURE, score
from ossicle.separate.systems import fit_system, settings_of
from ossicle.separators.base import Separator
from ossicle.study.outputs import new_figure, write_study

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "bench" / "separation"
RESAMPLES = 4000
TITLES = {"speech_noise": "Speech in noise", "drums_melody": "Drums with a melody"}
COLUMNS = {
    "si_sdr": "SI-SDR, dB",
    "si_sdr_improvement": "SI-SDR improvement, dB",
    "sdr_improvement": "SDR improvement, dB",
}
# Row -> system, and what of its settings is not the default.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "NMF, KL": ("nmf", {}),
    "NMF, Euclidean": ("nmf", {"divergence": "euclidean"}),
    "unfolded NMF, not trained": ("unfolded_nmf", {}),
    "unfolded NMF, tied": ("unfolded_nmf", {"tied": True}),
    "unfolded NMF, untied": ("unfolded_nmf", {}),
    "autoencoder, one layer": ("nonnegative_autoencoder", {}),
    "autoencoder, weights of any sign": ("nonnegative_autoencoder", {"nonnegative": False}),
    "autoencoder, several layers": (
        "nonnegative_autoencoder",
        {"hidden": (128,), "n_latents": (64,), "sparsity": (10.0, 30.0)},
    ),
    "end to end, tied": ("end_to_end", {"tied": True}),
    "end to end, untied": ("end_to_end", {}),
}
UNTRAINED = "unfolded NMF, not trained"
BOUNDS = (MIXTURE, IDEAL["binary"], IDEAL["ratio"])
# What is to be shown: the first above, or at or above, the second.
PAIRS = (
    ("unfolded NMF, tied", "NMF, KL"),
    ("unfolded NMF, untied", "NMF, KL"),
    ("unfolded NMF, untied", "NMF, Euclidean"),
    ("autoencoder, one layer", "NMF, KL"),
    ("autoencoder, weights of any sign", "NMF, KL"),
    ("autoencoder, several layers", "NMF, KL"),
    ("end to end, tied", "NMF, KL"),
    ("end to end, untied", "NMF, KL"),
    ("unfolded NMF, not trained", "NMF, KL"),
)


class Interval:
    """Intervals of means over mixtures of two kinds of groups that are crossed.

    Both kinds (speakers and recordings of noise) are drawn anew, each without regard to the other
    (Owen 2007, "The pigeonhole bootstrap", The Annals of Applied Statistics 1, 386-411), one fewer
    than there are; the interval is the mean plus and minus t, with as many degrees of freedom as
    the scarcer kind has groups but one, times the resampled deviation.
    """

    def __init__(self, one: pd.Series, other: pd.Series) -> None:
        draw = np.random.default_rng(0)
        weights = np.ones((RESAMPLES, len(one)))
        least = len(one)
        for groups in (one, other):
            codes, names = pd.factorize(groups)
            n = len(names)
            counts = draw.multinomial(n - 1, np.full(n, 1 / n), RESAMPLES)
            weights *= counts[:, codes]
            least = min(least, n)
        total = weights.sum(1, keepdims=True)
        self.weights = weights[total[:, 0] > 0] / total[total > 0][:, None]
        self.reach = float(student.ppf(0.975, least - 1))

    def __call__(self, values: np.ndarray) -> dict[str, float]:
        """value, low, high of the mean of (n,) values."""
        mean, deviation = float(values.mean()), float((self.weights @ values).std())
        low, high = mean - self.reach * deviation, mean + self.reach * deviation
        return {"value": mean, "low": low, "high": high}


def fit(name: str, mixtures: Mixtures, nmf: dict[str, Any]) -> Separator:
    """A system, trained; unfolded NMF from what was chosen for NMF."""
    system, changes = SYSTEMS[name]
    if system == "unfolded_nmf":
        names = {"n_components": "n_components", "sparsity": "sparsity", "exponents": "exponent"}
        changes = {**changes, **{key: (nmf[one],) for key, one in names.items()}}
    if name == UNTRAINED:
        settings = UnfoldedSettings()
        return unfolded(fit_nmf(mixtures, NMFSettings(**changes)), settings.n_trained)
    return fit_system(system, mixtures, settings_of(system)(**changes))


def fitted(
    task: str, name: str, mixtures: Mixtures, kept: dict[str, Any], nmf: dict[str, Any]
) -> Separator:
    """A system, trained or read; seconds of a core that training took go into ``kept``."""
    slug = "".join(c if c.isalnum() else "_" for c in name)
    place = FOLDER / task / f"{slug}.ossicle"
    if place.exists() and "train_s" in kept:
        return bundle.load_separator(place)
    start = time.process_time()
    separator = fit(name, mixtures, nmf)
    # Of this process alone: what else the machine does leaves it as it is.
    kept["train_s"] = time.process_time() - start
    kept["parameters"] = separator.num_parameters
    kept["chosen"] = json_safe(separator.info.get("chosen") or {})
    kept["steps"] = separator.info.get("steps")
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    bundle.save(separator, place)
    return separator


def speed(separator: Separator, mixtures: Mixtures) -> float:
    """Seconds of sound that a second of one core takes apart."""
    samples = [torch.from_numpy(mixtures.load(i).mixture)[None] for i in range(12)]
    separator.separate(samples[0])
    start = time.process_time()
    for each in samples:
        separator.separate(each)
    took = time.process_time() - start
    return sum(each.shape[-1] for each in samples) / mixtures.sample_rate / took


def measured(task: str, mixtures: Mixtures, say: Callable[[str], None]) -> dict[str, Any]:
    """Scores of all systems on the part "test", resumed."""
    path = FOLDER / f"{task}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    test = mixtures.part("test")
    if "bounds" not in kept:
        found = score({}, test)
        kept["bounds"] = {"per_source": found.per_source.to_dict("records")}
        write_json(path, json_safe(kept))
    for name in SYSTEMS:
        own = kept.setdefault(name, {})
        if "per_source" in own:
            continue
        nmf = kept["NMF, KL"].get("chosen", {})
        separator = fitted(task, name, mixtures, own, nmf)
        found = score({name: separator}, test, ideal=())
        rows = found.per_source[found.per_source["system"] == name]
        own["per_source"] = rows.to_dict("records")
        own["times_real_time"] = speed(separator, test)
        own["left_out"] = found.left_out
        write_json(path, json_safe(kept))
        gain = rows["si_sdr_improvement"].mean()
        say(f"{task}, {name}: {gain:.2f} dB, {own['train_s']:.0f} s to train")
    return kept


def per_mixture(kept: dict[str, Any], test: Mixtures) -> pd.DataFrame:
    """A row a system and mixture: means over its sources, and its groups."""
    rows = pd.DataFrame([row for own in kept.values() for row in own["per_source"]])
    keys = ["system", "mixture"]
    table = rows.groupby(keys, sort=False, as_index=False)[list(COLUMNS)].mean()
    names = [Path(p).relative_to(test.root).as_posix() for p in test.table["mixture"]]
    groups = test.table[["group1", "group2"]].assign(mixture=names)
    return table.merge(groups, on="mixture")


def told(value: dict[str, float]) -> str:
    """A mean with its interval."""
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def tables_of(
    kept: dict[str, Any], test: Mixtures
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """The systems, the differences of pairs, and both as numbers."""
    table = per_mixture(kept, test)
    mixtures = table["mixture"].unique()
    first = table[table["system"] == MIXTURE].set_index("mixture").loc[mixtures]
    interval = Interval(first["group1"], first["group2"])

    def values(name: str, column: str) -> np.ndarray:
        rows = table[table["system"] == name].set_index("mixture")
        return rows.loc[mixtures, column].to_numpy(float)

    rows, numbers = [], {}
    for name in (*BOUNDS, *SYSTEMS):
        own = kept.get(name, {})
        scores = {column: interval(values(name, column)) for column in COLUMNS}
        numbers[name] = {**scores, **{k: v for k, v in own.items() if k != "per_source"}}
        rows.append(
            {
                "system": name,
                **{COLUMNS[column]: told(scores[column]) for column in COLUMNS},
                "parameters": f"{own['parameters']:,}" if own else "",
                "minutes of a core to train": round(own["train_s"] / 60, 1) if own else None,
                "times real time, one core": round(own["times_real_time"]) if own else None,
            }
        )
    pairs = []
    for one, other in PAIRS:
        gained = {
            column: interval(values(one, column) - values(other, column))
            for column in ("si_sdr_improvement", "sdr_improvement")
        }
        numbers[f"{one} - {other}"] = gained
        pairs.append(
            {
                "system": one,
                "against": other,
                "SI-SDR, dB": told(gained["si_sdr_improvement"]),
                "SDR, dB": told(gained["sdr_improvement"]),
            }
        )
    return pd.DataFrame(rows), pd.DataFrame(pairs), numbers


def figure_of(numbers: dict[str, dict[str, Any]]) -> Any:
    """Improvements of all systems on both tasks, with intervals."""
    figure, axes = new_figure(7.5, 0.32 * (len(SYSTEMS) + len(BOUNDS)) + 1.0, cols=len(numbers))
    names = [*BOUNDS[1:], *SYSTEMS]
    for axis, (task, own) in zip(axes[0], numbers.items(), strict=True):
        for at, name in enumerate(names):
            value = own[name]["si_sdr_improvement"]
            colour = "#888888" if name in BOUNDS else "#0072B2"
            axis.plot([value["low"], value["high"]], [at, at], color=colour, linewidth=2)
            axis.plot(value["value"], at, "o", color=colour)
        axis.set_yticks(range(len(names)), names if axis is axes[0][0] else [""] * len(names))
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel("SI-SDR improvement, dB")
        axis.set_title(TITLES[task], fontsize=9)
    return figure


def findings(task: str, mixtures: Mixtures, numbers: dict[str, Any]) -> Iterator[str]:
    """What was found on one task."""
    test, train = mixtures.part("test").table, mixtures.part("train").table
    one, other = mixtures.sources
    yield (
        f"{TITLES[task]}: {len(train)} mixtures to learn from, {len(mixtures.part('valid'))} to "
        f"choose by, {len(test)} to report on, {separation_data.LENGTH_S:g} s each at "
        f"{mixtures.sample_rate} Hz, the second source -5 to 5 dB against the first; test "
        f"has {test['group1'].nunique()} groups of {one} and "
        f"{test['group2'].nunique()} of {other}, none of which is in another part."
    )
    parts = []
    for pair in PAIRS:
        value = numbers[" - ".join(pair)]["si_sdr_improvement"]
        parts.append(f"{pair[0]} against {pair[1]}: {told(value)} dB")
    yield f"Differences in SI-SDR on the same mixtures. {'; '.join(parts)}."


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true", help="make again what is kept")
    parser.add_argument("--task", choices=list(TITLES), action="append", help="these tasks only")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    if arguments.anew:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    text = [
        "All systems hear the mixture alone and know which two kinds of sources are in it; the "
        "ideal masks know the answer. Means over test mixtures and their sources. Intervals (95 %) "
        "are over both kinds of groups at once, so that they hold for other speakers and other "
        "noises. Times are those of one core. Unfolded NMF starts from what was chosen for NMF "
        "with KL, whose choices are not counted again."
    ]
    tables: dict[str, pd.DataFrame] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for task in arguments.task or TITLES:
        mixtures = separation_data.TASKS[task](FOLDER)
        with one_thread():
            kept = measured(task, mixtures, say)
        table, pairs, numbers[task] = tables_of(kept, mixtures.part("test"))
        tables[TITLES[task]] = table
        tables[f"{TITLES[task]}, differences"] = pairs
        text += findings(task, mixtures, numbers[task])
    write_study(
        arguments.out,
        "separation",
        title="Separation of named sources: NMF, autoencoders, end to end, unfolded",
        text=text,
        tables=tables,
        figures={"Improvements": figure_of(numbers)},
        result=numbers,
        record=record({"counts": separation_data.COUNTS}, seed=separation_data.SEED),
        command="python bench/separation.py",
    )


if __name__ == "__main__":
    main()
