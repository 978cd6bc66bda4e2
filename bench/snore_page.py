"""What `bench/snore.py` writes of its numbers: text, tables, figures."""

from __future__ import annotations

from typing import Any

import night
import numpy as np
import pandas as pd

from ossicle.study.outputs import COLOURS, new_figure


def spread(entry: dict[str, Any]) -> str:
    """A value with its interval."""
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def tables(result: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The page's tables."""
    by_runs = result["accuracy"]["runs"]["ways"]
    accuracy, gaps, asleep = [], [], []
    for way, entry in by_runs.items():
        row: dict[str, Any] = {"way": way}
        for some in result["accuracy"].values():
            there = way in some["ways"]
            row[f"accuracy, split {some['text']}"] = spread(some["ways"][way]) if there else "-"
        accuracy.append(row)
        if entry["to_best"] is not None:
            gap = entry["to_best"]
            gaps.append(
                {
                    "way": way,
                    "less": result["accuracy"]["runs"]["best"],
                    "difference": f"{gap['difference']:+.3f}",
                    "95 % interval": f"{gap['low']:+.3f} to {gap['high']:+.3f}",
                    "p": f"{gap['p_value']:.3g}",
                }
            )
    for way, entry in result["night"]["detectors"].items():
        asleep.append(
            {
                "detector": way,
                "precision": spread(entry["precision"]),
                "beside the snores' edges": spread(entry["precision_collar"]),
                "recall": spread(entry["recall"]),
                "AUC": spread(entry["auc"]),
                "snores heard": f"{entry['snores_heard']} of {entry['snores']}",
                "false alarms an hour": f"{entry['false_alarms_an_hour']:.0f}",
            }
        )
    called = pd.DataFrame(
        {
            way: {label: e["share"] for label, e in entry["called_snoring"].items()}
            for way, entry in result["night"]["detectors"].items()
        }
    )
    called.insert(0, "sound", called.index)
    return {
        "Accuracy": pd.DataFrame(accuracy),
        "Less than the best, by runs": pd.DataFrame(gaps),
        "The night": pd.DataFrame(asleep),
        "Share of frames called snoring": called,
    }


def words(result: dict[str, Any]) -> list[str]:
    """What was done, a paragraph each."""
    asleep, about, by_runs = result["night"], result["audit"], result["accuracy"]["runs"]
    seeds = next(e["seeds"] for w, e in by_runs["ways"].items() if "scratch" in w)
    counts = ", ".join(
        f"{asleep['sounds'][kind]} {name} of {asleep['recordings'][kind]} groups"
        for kind, name in (
            ("snoring", "snores"),
            ("no_snoring", "other clips of the set"),
            ("around", "clips of ESC-10"),
        )
    )
    lines = [
        "240 clips of snoring against 240 of other sounds, 1 s each, at 16 kHz. Consecutive "
        "numbers often come from one recording, so that blocks of 20 stay together: five folds, "
        f"{by_runs['n_groups']} groups, intervals of 95 % over the groups. All ways see the same "
        "folds. Each is a strategy: "
        + "; ".join(f"{way}: `{entry['strategy']}`" for way, entry in by_runs["ways"].items())
        + ".",
        f"From scratch is the mean of {len(seeds)} seeds by runs "
        f"({', '.join(f'{s:.3f}' for s in seeds)}) and one seed at random.",
        f"`ossicle audit` finds {about['pairs']} pairs of clips that share a sound, on both sides "
        f"of a border between runs: joined, the {about['runs']} groups become {about['joined']}. "
        "The third split ignores all of it.",
        f"The night: {asleep['minutes']:g} minutes of pink noise at -60 dBFS with {counts}, none "
        f"over another, from two of the five folds; the detectors are trained on the "
        f"{asleep['trained_on']} clips of the other three. "
        f"{asleep['left_out_as_shared_with_training']} sounds were left out as the audit finds "
        f"them in the training clips. Windows of {asleep['window_s']:g} s every "
        f"{asleep['step_s']:g} s; a frame of {asleep['frame_s']:g} s has the mean score of its "
        f"windows and is called snoring from 0.5 on; {asleep['frames_snoring']} of "
        f"{asleep['frames']} frames are. Intervals over the recordings and the minutes of quiet. "
        "Beside the snores' edges: without the frame before and after each snore, whose windows "
        "hear half of it. A snore is heard if one frame of it is called so; a false alarm is a "
        "stretch of frames with no snore near it.",
        "The last detector was added after the first four had been heard: trained on clips alone, "
        "YAMNet's has never met silence and is unsure of it. The threshold of 0.5 was not tuned.",
    ]
    if result["advice"] is not None:
        told = "\n".join(result["advice"]["lines"])
        lines.append(f"What `{result['advice']['command']}` says:\n\n```\n{told}\n```")
    return lines


def accuracy_figure(ways: dict[str, Any]) -> Any:
    """Accuracy of each way under each split, with intervals."""
    figure, axes = new_figure(8.0, 3.0)
    ax = axes[0, 0]
    names = list(ways["runs"]["ways"])
    for i, some in enumerate(ways.values()):
        there = [n for n, way in enumerate(names) if way in some["ways"]]
        rows = [some["ways"][names[n]] for n in there]
        value = np.array([r["value"] for r in rows])
        error = np.array([[r["value"] - r["low"], r["high"] - r["value"]] for r in rows]).T
        at = np.array(there) + 0.22 * (i - 1)
        ax.errorbar(
            value, at, xerr=error, fmt="o", ms=4, capsize=2, label=some["text"], color=COLOURS[i]
        )
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("accuracy, 95 % interval over groups")
    figure.legend(title="split", loc="outside lower center", ncols=len(ways))
    return figure


def night_figure(scores: dict[str, np.ndarray], truth: pd.DataFrame) -> Any:
    """Score of snoring over the night by each detector, and below what was there."""
    figure, axes = new_figure(10.0, 1.5 * (len(scores) + 1), rows=len(scores) + 1)
    minutes = np.arange(len(truth)) * night.FRAME_S / 60
    snoring = truth["snoring"].to_numpy()
    for ax, (way, score) in zip(axes[:-1, 0], scores.items(), strict=True):
        shown = np.nan_to_num(score)
        ax.fill_between(minutes, shown, step="post", rasterized=True, color=COLOURS[0], lw=0)
        wrong = np.where(snoring, 0.0, np.where(shown >= 0.5, shown, 0.0))
        ax.fill_between(minutes, wrong, step="post", rasterized=True, color=COLOURS[1], lw=0)
        ax.axhline(0.5, color="black", lw=0.6, ls=":")
        ax.set(ylim=(0, 1), yticks=(0, 0.5, 1), xlim=(0, minutes[-1]), xticklabels=[])
        ax.set_title(way, loc="left", fontsize=9)
        ax.grid(visible=False)
    axes[0, 0].set_title("orange: called snoring and is not", loc="right", fontsize=8)
    ax = axes[-1, 0]
    quiet = truth["label"].to_numpy() == "quiet"
    kinds = {"snoring": snoring, "other clips": truth["label"].eq("no_snoring clips").to_numpy()}
    kinds["ESC-10"] = ~(quiet | kinds["snoring"] | kinds["other clips"])
    for i, there in enumerate(kinds.values()):
        color = (COLOURS[0], COLOURS[4], COLOURS[2])[i]
        ax.fill_between(
            minutes, i + 0.1, i + 0.1 + 0.8 * there, step="post", rasterized=True, color=color, lw=0
        )
    ax.set(ylim=(3, 0), yticks=[0.5, 1.5, 2.5], xlim=(0, minutes[-1]), xlabel="minutes")
    ax.set_yticklabels(list(kinds))
    ax.grid(visible=False)
    figure.supylabel("score of snoring", fontsize=9)
    return figure
