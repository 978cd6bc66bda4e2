"""The page of bench/own_network.py: tables, figures and words, all out of the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import own_network_curves as curves
import pandas as pd
from matplotlib.figure import Figure
from own_network_scores import told

from ossicle.study.outputs import COLOURS, new_figure

Found = Mapping[str, Mapping[str, Any]]
# To reach, as the issue has it.
ESC10, PARAMETERS, MEGABYTES, TIMES = 0.98, 2_000_000, 4.0, 2.0


def points(gain: Mapping[str, float]) -> str:
    """A difference in points, with its interval."""
    return told({k: 100 * gain[k] for k in ("value", "low", "high")}, sign=True, digits=2)


def reached(yes: bool) -> str:
    """Said of a target."""
    return "reached" if yes else "not reached"


def texts(found: Found) -> list[str]:
    """What was found, a paragraph a part."""
    said = [
        "Frozen networks; ridge on every layer unless a row says otherwise; grouped "
        "cross-validation. Intervals are 95 % over groups of clips. A mean is over sets, which are "
        "resampled each by itself, the same groups for all networks; differences are paired. They "
        "are of these sets, not of sets at large."
    ]
    makers = {
        "five": _five_text,
        "open": _open_text,
        "speed": _speed_text,
        "runs": _runs_text,
        "curves": _curves_text,
    }
    for name, make in makers.items():
        if name in found:
            said += make(found[name])
    return said


def _five_text(part: Mapping[str, Any]) -> Iterator[str]:
    mine = part["rows"][part["network"]]
    gain = mine["mean_over_yamnet"]
    line = (
        f"**Mean over {', '.join(part['clips'])}**: {part['network']} {told(mine['mean'])}; over "
        f"yamnet, all layers, by {points(gain)} points: {reached(gain['low'] > 0)} (the interval "
        f"is to lie above zero)."
    )
    if "esc10" in mine["sets"]:
        score = mine["sets"]["esc10"]
        yes = reached(score["value"] >= ESC10)
        line += f" esc10: {told(score)}, to reach {ESC10:g}: {yes}."
    if "over_first" in part:
        gain = part["over_first"]
        line += f" Over {gain['row']}: {points(gain)} points."
    yield line
    sets = "; ".join(
        f"{name}: {part['clips'][name]} clips, {part['groups'][name]} groups, "
        f"`{mine['commands'][name]}`"
        for name in part["clips"]
    )
    yield (
        f"Protocols as in [line.md](line.md): {sets}. The protocol's defaults were settled on "
        "these five sets with yamnet's scores in view; what trained the network was not chosen by "
        "them."
    )


def _open_text(part: Mapping[str, Any]) -> Iterator[str]:
    above = [d for d in part["differences"] if d["low"] > 0]
    below = [d["to"] for d in part["differences"] if d["high"] < 0]
    unclear = [d["to"] for d in part["differences"] if d["low"] <= 0 <= d["high"]]
    line = (
        f"**Open suite**: place {part['rank']} of {part['of']} rows of at most 10 M parameters, "
        f"mean {told(part['mean'])}, mean rank {part['mean_rank']:.2f}; to be first: "
        f"{reached(part['rank'] == 1)}. Beyond chance above {len(above)} of the "
        f"{len(part['differences'])} rows that were run beside it"
    )
    line += f"; not told apart from {', '.join(unclear)}" if unclear else ""
    line += f"; beyond chance below {', '.join(below)}" if below else ""
    yield f"{line}. `{part['command']}`; see [benchmark_open.md](benchmark_open.md)."


def _speed_text(part: Mapping[str, Any]) -> Iterator[str]:
    name = part["network"]
    size = part["sizes"][name]
    kept = size["megabytes"] or size["megabytes_half"]
    where = "its file" if size["megabytes"] else "at half precision"
    line = (
        f"**Size**: {size['parameters']:,} parameters (at most {PARAMETERS:,}: "
        f"{reached(size['parameters'] <= PARAMETERS)}), {kept:.2f} MB {where} (at most "
        f"{MEGABYTES:g}: {reached(kept <= MEGABYTES)}). **Speed**, one thread, in turns with "
        f"yamnet in one run of {part['repeats']} repeats, the same {part['minutes']:g} minutes of "
        "audio, all layers and poolings, front end included: "
    )
    ratios = []
    for what, of in part["material"].items():
        mine = of[name]
        ratio = mine["ratio"]
        ratios.append(
            f"{what} {mine['times_real_time']:.0f} times real time, "
            f"{told(ratio, digits=2)} times yamnet"
        )
    first = next(iter(part["material"].values()))[name]["ratio"]
    yes = reached(first["low"] >= TIMES)
    yield f"{line}{'; '.join(ratios)}. Twice as quick, on the first of these: {yes}."


def _runs_text(part: Mapping[str, Any]) -> Iterator[str]:
    rows = {name: row for name, row in part["rows"].items() if "over_base" in row}
    if not rows:
        return
    better = [name for name, row in rows.items() if row["over_base"]["low"] > 0]
    worse = [name for name, row in rows.items() if row["over_base"]["high"] < 0]
    tasks = ", ".join(f"{name} ({n} clips)" for name, n in part["clips"].items())
    yield (
        f"**Runs**: each changes one run in what is said, and is scored on the development tasks "
        f"alone ({tasks}). What a task asks for was kept from all these runs: effects of packages, "
        f"music, presets, pieces, voices, words; other audio of the same packages, and other words "
        f"of the same voices, was not. One seed a "
        f"run: the intervals hold the luck of the clips, not that of training. Beyond chance "
        f"better than what they change: {', '.join(better) or 'none'}; worse: "
        f"{', '.join(worse) or 'none'}."
    )
    if part.get("earlier"):
        yield (
            f"Taken over from an earlier run of this command, each against the base of that run: "
            f"{', '.join(part['earlier'])}."
        )
    final = part["final"]
    why = "" if final["blind"] else " It has heard these tasks, and is not scored on them."
    before = final.get("begun_with")
    begun = f", begun with {_run_told(before)}" if before else ""
    yield f"What ships is {_run_told(final)}{begun}.{why}"


def _run_told(run: Mapping[str, Any]) -> str:
    steps, hours, seconds = (run["told"].get(name) for name in ("steps", "hours", "seconds"))
    heard = f", {steps:,} steps" if steps else ""
    heard += f" on {hours:.1f} h" if hours else ""
    heard += f" in {seconds / 60:.0f} minutes" if seconds else ""
    return f"{run['name']}{heard} (`{run['command']}`)"


def _curves_text(part: Mapping[str, Any]) -> Iterator[str]:
    if part["curves"]:
        yield curves.words(part["curves"])
        yield (
            "The law is score = top - a x^(-b), fitted to the means, and to every resample of the "
            "clips for the interval; three unknowns for few points, so what lies beyond the dotted "
            "line is a guess that holds if the law does, and training anew would move every point. "
            f"{part['note']}"
        )


def tables(found: Found) -> dict[str, pd.DataFrame]:
    """Heading -> table."""
    made: dict[str, pd.DataFrame] = {}
    if "five" in found:
        made["Measuring sets"] = _five_table(found["five"])
    if "open" in found:
        made["Open suite, rows of at most 10 M parameters"] = _open_table(found["open"])
    if "speed" in found:
        made["Size"], made["Speed, one thread"] = _speed_tables(found["speed"])
    if "runs" in found:
        for kind, table in _runs_tables(found["runs"]).items():
            made[kind] = table
    if "curves" in found and found["curves"]["curves"]:
        made |= curves.tables(found["curves"]["curves"])
    return made


def _five_table(part: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for title, row in part["rows"].items():
        shown = {"network": title, "mean": told(row["mean"])}
        gain = row.get("mean_over_yamnet")
        shown["mean, over yamnet, all layers"] = f"{points(gain)} points" if gain else ""
        rows.append(shown | {name: told(score, digits=3) for name, score in row["sets"].items()})
    mine = part["rows"][part["network"]]
    rows.append(
        {
            "network": f"{part['network']}, over yamnet, points",
            "mean": points(mine["mean_over_yamnet"]),
            **{name: points(gain) for name, gain in mine["over_yamnet"].items()},
        }
    )
    return pd.DataFrame(rows).fillna("")


def _open_table(part: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        {
            "row": part["network"],
            "parameters": "",
            "mean": told(part["mean"], digits=3),
            "mean rank": f"{part['mean_rank']:.2f}",
            f"{part['network']} over it, points": "",
        }
    ]
    for d in sorted(part["differences"], key=lambda d: -d["mean"]["value"]):
        rows.append(
            {
                "row": d["to"] + (" *" if d["heard"] else ""),
                "parameters": f"{d['parameters']:,}",
                "mean": told(d["mean"], digits=3),
                "mean rank": f"{d['mean_rank']:.2f}",
                f"{part['network']} over it, points": points(d),
            }
        )
    return pd.DataFrame(rows)


def _speed_tables(part: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    sizes = pd.DataFrame(
        {
            "network": name,
            "parameters": f"{size['parameters']:,}",
            "layers": size["layers"],
            "MB, its file": size["megabytes"],
            "MB at half precision": size["megabytes_half"],
        }
        for name, size in part["sizes"].items()
    )
    rows = []
    for what, of in part["material"].items():
        for name, one in of.items():
            rows.append(
                {
                    "audio": what,
                    "network": name,
                    "seconds": told(one["seconds"], digits=3),
                    "times real time": f"{one['times_real_time']:.0f}",
                    "times yamnet": told(one["ratio"], digits=2),
                }
            )
    return sizes, pd.DataFrame(rows)


def _runs_tables(part: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    made: dict[str, list[dict[str, Any]]] = {}
    headings = {"ablation": "Ablations", "search": "Search for the network", "": "Other runs"}
    order = sorted(part["rows"].items(), key=lambda item: -item[1]["mean"]["value"])
    for name, row in order:
        gain = row.get("over_base")
        made.setdefault(headings.get(row["kind"], row["kind"]), []).append(
            {
                "run": name + (" (shipped)" if name == part["final"]["name"] else ""),
                "what": row["changes"],
                "against": row["of"],
                "mean": told(row["mean"], digits=3),
                "difference, points": points(gain) if gain else "",
                **{one: f"{score['value']:.3f}" for one, score in row["sets"].items()},
                "hours": row["hours"],
                "epochs": row["epochs"],
                "minutes": "" if row["minutes"] is None else f"{row['minutes']:.0f}",
                "parameters": f"{row['parameters']:,}",
                "times real time": f"{row['times_real_time']:.0f}",
            }
        )
    wanted = [heading for heading in headings.values() if heading in made]
    return {heading: pd.DataFrame(made[heading]) for heading in wanted}


def figures(found: Found) -> dict[str, Figure]:
    """Heading -> figure."""
    drawn: dict[str, Figure] = {}
    if "five" in found:
        drawn["Measuring sets"] = _five_figure(found["five"])
    if "open" in found:
        differences = found["open"]["differences"]
        drawn["Open suite"] = forest(
            [(d["to"], d) for d in sorted(differences, key=lambda d: d["value"])],
            f"{found['open']['network']} over it, points",
        )
    if "runs" in found:
        rows = {n: r["over_base"] for n, r in found["runs"]["rows"].items() if "over_base" in r}
        if rows:
            order = sorted(rows.items(), key=lambda item: -item[1]["value"])
            drawn["Runs"] = forest(order, "over the run that it changes, points")
    if "curves" in found and found["curves"]["curves"]:
        drawn["Learning curves"] = curves.figure(found["curves"]["curves"])
    return drawn


def forest(rows: Sequence[tuple[str, Mapping[str, float]]], label: str) -> Figure:
    """Differences in points with intervals, a line each; those beyond chance in colour."""
    figure, axes = new_figure(6.5, 0.8 + 0.26 * len(rows))
    axis = axes[0][0]
    for at, (_, gain) in enumerate(rows):
        low, value, high = (100 * gain[k] for k in ("low", "value", "high"))
        colour = COLOURS[0] if low > 0 else COLOURS[1] if high < 0 else "#777777"
        axis.plot([low, high], [at, at], color=colour, linewidth=2)
        axis.plot(value, at, "o", color=colour)
    axis.axvline(0.0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(label)
    return figure


def _five_figure(part: Mapping[str, Any]) -> Figure:
    sets = list(part["clips"])
    figure, axes = new_figure(8.0, 3.8)
    axis = axes[0][0]
    titles = list(part["rows"])
    for turn, (title, row) in enumerate(part["rows"].items()):
        scores = [row["mean"], *(row["sets"][name] for name in sets)]
        at = np.arange(len(scores)) + 0.13 * (turn - (len(titles) - 1) / 2)
        value = np.array([score["value"] for score in scores])
        low, high = (np.array([score[side] for score in scores]) for side in ("low", "high"))
        axis.errorbar(
            at, value, [value - low, high - value], fmt="o", color=COLOURS[turn], label=title,
            markersize=4, capsize=2, linewidth=1.2,
        )  # fmt: skip
    axis.axvline(0.5, color="#888888", linewidth=0.8)
    axis.set_xticks(range(len(sets) + 1), ["mean", *(name.replace("_", "\n", 1) for name in sets)])
    axis.set_xlim(-0.5, len(sets) + 0.5)
    axis.set_ylabel("accuracy")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure
