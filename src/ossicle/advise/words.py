"""The advice in words: lines for the terminal, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ossicle.finetune.strategy import Strategy

VERDICTS = {
    "best": "the recommended one was the best",
    "within": "the recommended one was not the best, by less than chance explains",
    "worse": "the recommended one was worse than the best, by more than chance explains",
}


def duration(seconds: float) -> str:
    """Seconds as people say them: "0.4 s", "12 s", "3 min", "2.5 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def command(text: str, clips: str, options: Sequence[str] = ()) -> str:
    """The command that makes a strategy's model from the clips.

    Args:
        text: of a strategy.
        clips: as the user gave them.
        options: of reading them, such as "--groups", "speaker".
    """
    return Strategy.parse(text).command(clips, "model.ossicle", options)


def measures(facts: Mapping[str, Any]) -> list[str]:
    """The measures, a line each."""
    size, heard, network = facts["size"], facts["sound"], facts["network"]
    several = "" if size["task"] == "classes" else f" ({size['task']})"
    lines = [
        f"{size['n_clips']} clips, {size['n_groups']} groups ({size['group_source']}), "
        + (
            "numbers"
            if size["task"] == "regression"
            else f"{size['n_classes']} classes{several}; a class has {size['median_clips']:.0f} "
            f"clips of {size['median_groups']:.0f} groups (medians), the smallest "
            f"{size['least_clips']:.0f}"
        )
    ]
    seconds = heard["seconds"]
    if seconds["median"] is not None:
        text = (
            f"clips of {seconds['median']:.2g} s ({seconds['least']:.2g} to "
            f"{seconds['most']:.2g} s) at {heard['rate']:.0f} Hz"
        )
        if heard["bandwidth"] is not None:
            text += (
                f"; 99 % of the power lies below {heard['bandwidth']:.0f} Hz, and "
                f"{network['name']} hears up to {network['sample_rate'] / 2:.0f} Hz"
            )
        lines.append(text)
    shown = [
        f"{name} {entry['explained']:.2f} / {max(_quick(entry)):.2f}"
        for name, entry in facts["read_outs"].items()
    ]
    lines.append(
        f"LogME as share of variance / nearest clips held out, on {facts['sample']['n_clips']} "
        f"clips (chance {facts['sample']['chance']:.2f}): {', '.join(shown)}"
    )
    layers = facts["layers"]
    if len(layers) > 1:
        best = max(layers, key=lambda name: layers[name]["explained"])
        last = list(layers)[-1]
        lines.append(
            f"LogME by layer is highest at {best} ({layers[best]['explained']:.2f}); the last, "
            f"{last}, has {layers[last]['explained']:.2f}"
        )
    source = facts["source"]
    if source is not None:
        text = (
            f"the source's classifier claims {100 * source['claimed']:.0f} % of the clips with one "
            f"of its {source['n_classes']} classes ({', '.join(source['names'][:3])})"
        )
        if "leep" in source:
            text += (
                f"; LEEP {source['leep']:.2f}, NCE {source['nce']:.2f} nats (0 at most, "
                f"{source['floor']:.2f} if it told nothing)"
            )
        lines.append(text)
    if facts["distance"] is not None:
        d = facts["distance"]
        lines.append(
            f"distance from the source, {d['proxy_a']['n_clips']} clips a side: proxy A "
            f"{_interval(d['proxy_a'])} of 2, Fréchet {_interval(d['frechet'])}, kernel "
            f"{_interval(d['kernel'])}"
        )
    return lines


def _quick(entry: Mapping[str, float]) -> list[float]:
    return [entry[key] for key in ("neighbours", "centroid") if key in entry]


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def table(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row an alternative: what, expected score, its interval, cost, and what was verified."""
    verified = result["verified"]
    entries = result["expected"] if verified is None else verified["expected"]
    chosen = result["recommended"] if verified is None else verified["recommended"]
    rows = []
    for entry in entries:
        row: dict[str, Any] = {
            "alternative": entry["name"],
            "what": entry["words"],
            "expected": entry["expected"],
            "low": entry["low"],
            "high": entry["high"],
            "seconds": entry["seconds"],
            "recommended": "yes" if entry["name"] == chosen else "",
            "strategy": entry["text"],
        }
        if verified is not None:
            score = verified["scores"][entry["name"]]
            row |= {f"verified {key}": score[key] for key in ("value", "low", "high")}
            row["verified seconds"] = score["seconds"]
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(result: Mapping[str, Any]) -> list[str]:
    """What came of the verification, in sentences."""
    judged, verified = result["judged"], result["verified"]
    if judged is None:
        return []
    lines = [
        f"verified on {verified['words']}: {verified['protocol']}; {verified['n_clips']} clips of "
        f"{verified['n_groups']} groups tested"
    ]
    if judged["spearman"] is not None:
        lines.append(
            f"predicted against verified order of {judged['n']}: Kendall tau_w "
            f"{judged['tau_w']:.2f}, Spearman {judged['spearman']:.2f}; {judged['covered']} of "
            f"{judged['n']} scores within their interval"
        )
    if judged["verdict"] is not None:
        text = VERDICTS[judged["verdict"]]
        if judged["verdict"] != "best":
            d = verified["to_best"][verified["recommended"]]
            text += f": {judged['best']} is ahead by {_interval(d)}"
        lines.append(text)
    return lines


def advice_lines(result: Mapping[str, Any], clips: str, options: Sequence[str] = ()) -> list[str]:
    """The whole advice for the terminal.

    Args:
        result: of ``advice.advise``.
        clips, options: as for ``command``.
    """
    case, entries = result["case"], result["expected"]
    lines = measures(result["facts"])
    lines += [
        f"case: {case['case']}",
        *(f"  {reason}" for reason in case["why"]),
        f"  {case['do']}",
    ]
    by_name = {entry["name"]: entry for entry in entries}
    best = by_name[result["recommended"]]
    lines += [
        f"recommended: {best['words']}, expected {best['expected']:.3f} "
        f"({100 * result['level']:.0f} % interval {best['low']:.3f} to {best['high']:.3f}), about "
        f"{duration(best['seconds'])}",
        f"  {command(best['text'], clips, options)}",
    ]
    if not result["agrees"]:
        lines.append("  the rule of the case names others first; what was measured weighs more")
    also = [n for n in case["names"] if n in by_name and n != result["recommended"]]
    if also:
        lines += [
            "also worth a try:",
            *(f"  {command(by_name[n]['text'], clips, options)}" for n in also),
        ]
    if result["further"]:
        lines.append(f"{case['also']} Not predicted:")
        lines += [f"  {command(text, clips, options)}" for text in result["further"]]
    lines += _rows(result)
    lines += verdict(result)
    lines += [f"note: {text}" for text in result["warnings"]]
    return lines


def _rows(result: Mapping[str, Any]) -> list[str]:
    """The table as aligned text."""
    verified = result["verified"]
    head = ["alternative", "expected", "cost at most", *(["verified"] if verified else [])]
    cells = []
    for row in table(result).to_dict("records"):
        mark = "* " if row["recommended"] else "  "
        cell = [
            f"{mark}{row['what']}",
            f"{row['expected']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
            duration(row["seconds"]),
        ]
        if verified:
            cell.append(
                f"{row['verified value']:.3f} ({row['verified low']:.3f} to "
                f"{row['verified high']:.3f})"
            )
        cells.append(cell)
    every = [[f"  {head[0]}", *head[1:]], *cells]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
