"""The layers study of audio in words, tables and figures; every word follows from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle.study.layers_readouts import ALL, BEST, CHOSEN, LAST, MFCC, MFCC_ALL, UNTRAINED
from ossicle.study.outputs import write_study

QUESTION = "Does concatenating every layer work for a network this deep?"


def write_layers(
    result: dict[str, Any], out: Path | None, name: str, command: str
) -> dict[str, Any]:
    """Add `text` to a result of `layers_readouts.summarise`, and write it all into a folder.

    Args:
        result: the study's; returned with `text`, and `files` where they were written.
        out: the folder, or None.
        name: of the files.
        command: that makes it again.
    """
    result["text"] = study_text(result)
    if out is None:
        return result
    from ossicle.study.layers_figures import (
        profile_figure,
        scores_figure,
        selection_figure,
        sets_figure,
    )

    figures = {
        "Scores": scores_figure(result),
        "Layer profile": profile_figure(result),
        "Layers chosen": selection_figure(result),
    }
    sets = {t: e["sets"] for t, e in result["tasks"].items() if "sets" in e}
    if sets:
        metrics = {entry["metric"] for entry in result["tasks"].values()}
        figures["Sets by size"] = sets_figure(
            sets,
            # Not the outer folds' scores: these sets were chosen among by them.
            metric=f"{metrics.pop() if len(metrics) == 1 else 'score'} inside the training parts",
        )
    network = result["network"]
    used = {key: value for key, value in result.items() if key not in ("record", "files")}
    result["files"] = [
        str(path)
        for path in write_study(
            out,
            name,
            title=f"Layers of {network['name']} on {len(result['tasks'])} tasks",
            text=result["text"],
            tables=study_tables(result),
            figures=figures,
            result=used,
            record=result["record"],
            command=command,
        )
    ]
    return result


def study_tables(result: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Heading -> table: scores, intervals, differences, layers, what was chosen, agreement."""
    tasks, means = result["tasks"], result["means"]
    readouts = list(next(iter(tasks.values()))["scores"])
    scores = pd.DataFrame(
        {
            "read-out": readouts,
            **{t: [e["scores"][r]["value"] for r in readouts] for t, e in tasks.items()},
            "mean": [np.nan if means is None else means[r] for r in readouts],
        }
    )
    intervals = pd.DataFrame(
        [
            {"task": task, "read-out": readout, "metric": entry["metric"], **score}
            for task, entry in tasks.items()
            for readout, score in entry["scores"].items()
        ]
    )
    differences = pd.DataFrame(
        [
            {"difference": pair, "task": task, "value": d["difference"]}
            | {key: d[key] for key in ("low", "high", "p_value")}
            for pair in next(iter(tasks.values()))["differences"]
            for task, entry in tasks.items()
            for d in [entry["differences"][pair]]
        ]
    )
    layers = pd.DataFrame(
        {
            "layer": result["layers"],
            **{
                task: [entry["profile"][layer]["value"] for layer in result["layers"]]
                for task, entry in tasks.items()
            },
        }
    )
    chosen = pd.DataFrame(
        {
            "layer": result["layers"],
            **{
                task: [entry["selection"][CHOSEN][layer] for layer in result["layers"]]
                for task, entry in tasks.items()
            },
        }
    )
    tables = {
        "Scores": scores,
        "Intervals": intervals,
        "Differences": differences,
        "Layers alone": layers,
        "Share of folds that chose a layer": chosen,
        "Number of layers chosen": pd.DataFrame(
            [{"task": task, **entry["n_chosen"]} for task, entry in tasks.items()]
        ),
    }
    if result["agreement"]:
        tables["Agreement of layer profiles"] = pd.DataFrame(result["agreement"])
    return tables


def study_text(result: Mapping[str, Any]) -> list[str]:
    """What was found, a paragraph each."""
    tasks, layers = result["tasks"], result["layers"]
    network = result["network"]
    text = [
        f"{network['name']} ({network['weights']}), {len(layers)} layers; the ridge probe on "
        "frozen features, every choice made inside the training part of each outer fold.",
        QUESTION,
    ]
    text += [
        sentence
        for a, b in ((ALL, LAST), (CHOSEN, ALL), (ALL, BEST), (ALL, UNTRAINED), (MFCC_ALL, ALL))
        if (sentence := _difference(result, a, b))
    ]
    text.append(_verdict(result))
    for task, entry in tasks.items():
        profile = entry["profile"]
        best = max(layers, key=lambda layer: profile[layer]["value"])
        place = layers.index(best) + 1
        scores = entry["scores"]
        told = [
            f"{task}: the best layer by itself is {best} (number {place} of {len(layers)}, "
            f"{profile[best]['value']:.4f}, known only afterwards)",
            f"the last alone {scores[LAST]['value']:.4f}",
            f"all {scores[ALL]['value']:.4f}",
            f"chosen {scores[CHOSEN]['value']:.4f} with {entry['n_chosen'][CHOSEN]:.1f} layers "
            "on average",
        ]
        if MFCC in scores:
            told.append(f"MFCC {scores[MFCC]['value']:.4f}")
        about = f"{entry['n_clips']} clips, {entry['n_groups']} groups; {entry['protocol']}"
        text.append("; ".join(told) + f" ({about}).")
        if entry["skipped"]:
            path, reason = entry["skipped"][0]
            text.append(
                f"{task}: {len(entry['skipped'])} clips were left out, the first: "
                f"{Path(path).name}: {reason}."
            )
    known = [a for a in result["agreement"] if a["rank_correlation"] is not None]
    if known:
        least = min(known, key=lambda a: a["rank_correlation"])
        most = max(known, key=lambda a: a["rank_correlation"])
        ends = [f"{e['rank_correlation']:.2f} ({e['a']}, {e['b']})" for e in (least, most)]
        mean = np.mean([a["rank_correlation"] for a in known])
        text.append(
            "Do tasks agree on which layers are good alone? Rank correlation of their profiles: "
            + (ends[0] if len(known) == 1 else f"{mean:.2f} on average, {' to '.join(ends)}")
            + "."
        )
    return text


def _difference(result: Mapping[str, Any], a: str, b: str) -> str:
    pair = f"{a} - {b}"
    n = len(result["tasks"])
    if result["differences"] is None:
        return ""
    d = result["differences"].get(pair)
    if d is None:
        return ""
    better = f"better on {d['tasks_better']} and worse on {d['tasks_worse']} of {n} tasks"
    if n == 1:
        better = {(1, 0): "better", (0, 1): "worse"}.get(
            (d["tasks_better"], d["tasks_worse"]), "equal"
        )
    on_average = "" if n == 1 else " on average"
    return (
        f"{a[0].upper()}{a[1:]} against {b}: {better}, {d['difference']:+.4f}{on_average} "
        f"(95 % interval {d['low']:+.4f} to {d['high']:+.4f}); {_apart(d)}."
    )


def _apart(d: Mapping[str, float]) -> str:
    if d["low"] > 0:
        return "more than chance"
    return "worse by more than chance" if d["high"] < 0 else "these clips do not tell them apart"


def _verdict(result: Mapping[str, Any]) -> str:
    """The answer to the question, from all - last and chosen - all."""
    if result["differences"] is None:
        return "The tasks have different metrics: see each task; there is no mean over them."
    every, chosen = (result["differences"][f"{a} - {b}"] for a, b in ((ALL, LAST), (CHOSEN, ALL)))
    if every["low"] > 0:
        answer = "Yes: all layers beat the last one"
    elif every["high"] < 0:
        answer = "No: all layers are worse than the last one"
    else:
        answer = "Not shown: all layers and the last one are not told apart"
    if chosen["low"] > 0:
        rest = "choosing layers beats taking all"
    elif chosen["high"] < 0:
        rest = "choosing layers is worse than taking all"
    else:
        side = "at least as high" if chosen["difference"] >= 0 else "lower"
        rest = (
            f"choosing layers brings no difference that these clips can show (its mean is {side})"
        )
    return f"{answer}; {rest}."
