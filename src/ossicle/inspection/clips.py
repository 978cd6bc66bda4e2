"""Exhibits of what a network makes of clips: layers compared with each other, clouds by label."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.features import FeatureTable, ProgressCallback, extract
from ossicle.inspection import drawings
from ossicle.inspection.embeddings import neighbour_agreement, plane, silhouette
from ossicle.inspection.exhibit import Exhibit, Inspection
from ossicle.inspection.layer_cka import LayerCKA, layer_cka
from ossicle.model import Model

SECTION = "What it makes of clips"
QUARTERS = ("lowest quarter", "second", "third", "highest quarter")
MOST_NAMES = 15


def look_at_clips(
    model: Model,
    clips: Clips,
    found: Inspection,
    *,
    most: int = 300,
    seed: int = 0,
    workers: int = 1,
    progress: ProgressCallback | None = None,
) -> None:
    """Add the comparison of layers and the clouds.

    Args:
        model: its backbone is run on the clips; its head, if any, is not used.
        clips: labelled.
        found: what is added to.
        most: clips at most; drawn at random, whole groups' clips alike.
        seed: of the draw, and of the intervals.
        workers: threads.
        progress: called after every clip.

    Raises:
        DataError: too few clips can be used.
    """
    if len(clips) > most:
        found.notes.append(f"{most} of {len(clips)} clips were drawn at random; --most takes more")
        kept = np.random.default_rng(seed).permutation(len(clips))[:most]
        clips = clips.subset(np.sort(kept))
    table = extract(model, clips, poolings=["mean"], workers=workers, progress=progress)
    if table.skipped:
        _, path, reason = table.skipped[0]
        found.notes.append(
            f"{len(table.skipped)} clips could not be used; the first: {path}: {reason}"
        )
    clips = clips.subset(table.index)
    groups = clips.groups()
    features = table.by_layer()
    flat = [name for name, X in features.items() if not np.ptp(X, axis=0).any()]
    if flat:
        found.notes.append(f"layers that are the same for all clips: {', '.join(flat)}")
    found.numbers["clips"] = {"n_clips": len(clips), "n_groups": len(np.unique(groups))}
    found.facts["clips"] = f"{len(clips)} of {len(np.unique(groups))} groups"
    if len(features) > 1:
        cka = layer_cka(features, groups, random_state=seed)
        found.exhibits.append(_cka(cka))
        found.numbers["cka"] = {
            "layers": list(cka.layers),
            "matrix": cka.matrix,
            "low": cka.low,
            "high": cka.high,
            "neighbours": dict(zip(("value", "low", "high"), cka.neighbours, strict=True)),
        }
    else:
        found.notes.append("this network has one layer: there are none to compare")
    found.exhibits.append(_clouds(table, clips, found, seed))


def _cka(cka: LayerCKA) -> Exhibit:
    value, low, high = cka.neighbours
    count = len(cka.layers)
    first, second = np.triu_indices(count, 1)
    table = pd.DataFrame(
        {
            "layer": [cka.layers[i] for i in first],
            "other": [cka.layers[j] for j in second],
            "cka": cka.matrix[first, second],
            "low": cka.low[first, second],
            "high": cka.high[first, second],
        }
    )
    ends = cka.matrix[0, -1]
    return Exhibit(
        "layer_cka",
        SECTION,
        "Layers compared with each other",
        f"Debiased linear CKA of the layers' mean features over {cka.n_clips} clips "
        f"({cka.n_groups} groups): 1 is the same up to rotation and scale, 0 what clips in random "
        f"order give. Layers next to each other have {value:.3f} on average (95 % interval "
        f"{low:.3f} to {high:.3f}, jackknife over groups), the first and the last {ends:.3f}.",
        f"Heat map of {count} by {count} layers; neighbours {value:.2f} on average, first and last "
        f"{ends:.2f}.",
        lambda: drawings.heat_map(
            cka.matrix,
            rows=cka.layers,
            columns=cka.layers,
            label="CKA",
            limits=(0.0, 1.0),
            numbers=count <= 14,
        ),
        table,
    )


def _clouds(table: FeatureTable, clips: Clips, found: Inspection, seed: int) -> Exhibit:
    features = table.by_layer()
    names = [n for n, X in features.items() if np.ptp(X, axis=0).any()]
    if not names or len(clips) < 3:
        raise DataError("the clips give no cloud: too few, or no layer tells them apart")
    chosen = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
    codes, classes, same, told = _labels(clips)
    groups = clips.groups()
    panels, rows = [], []
    for name, X in features.items():
        if name not in names:
            continue
        agreement = neighbour_agreement(X, same, groups, random_state=seed)
        rows.append(
            {
                "layer": name,
                "agreement": agreement.value,
                "low": agreement.low,
                "high": agreement.high,
                "chance": agreement.chance,
                "silhouette": silhouette(X, codes),
            }
        )
        if name in chosen:
            points, shares = plane(X)
            rows[-1]["variance_shown"] = sum(shares)
            panels.append((f"{name}: {agreement.value:.2f}", points))
    numbers = pd.DataFrame(rows)
    found.numbers["clouds"] = rows
    best = (
        numbers.loc[numbers["agreement"].idxmax()] if numbers["agreement"].notna().any() else None
    )
    most = (
        ""
        if best is None
        else (
            f" Of all layers most at {best['layer']}: {best['agreement']:.3f} (95 % interval "
            f"{best['low']:.3f} to {best['high']:.3f}, the largest of {len(numbers)} and so "
            f"a little too high; by chance {best['chance']:.3f})."
        )
    )
    return Exhibit(
        "clouds",
        SECTION,
        "Clouds of clips",
        f"Each clip's mean features at {len(chosen)} layers, on their first two principal "
        f"components{told}. Beside each name: of a clip's 5 nearest clips of other groups, in all "
        f"dimensions, the share with its label.{most}",
        f"Scatter plots of {len(clips)} clips at the layers {', '.join(chosen)}, coloured by "
        f"{len(classes)} labels.",
        lambda: drawings.clouds(panels, codes, classes, 14.0),
        numbers,
    )


def _labels(clips: Clips) -> tuple[np.ndarray, list[str], np.ndarray, str]:
    """(n,) codes for colours, names, (n, n) which clips have a label in common, a remark."""
    y = clips.y()
    told, names = "", list(clips.classes)
    if clips.task == "regression":
        edges = np.quantile(y, [0.25, 0.5, 0.75])
        codes, names = np.searchsorted(edges, y), list(QUARTERS)
        told = ", coloured by quarters of the values; a quarter counts as a label"
    elif clips.task == "multilabel":
        # The rarest of a clip's labels says most about it.
        rarity = np.where(y > 0, y.sum(axis=0), np.iinfo(np.int64).max)
        codes = rarity.argmin(axis=1)
        told = ", coloured by the rarest of a clip's labels; one in common counts as the same"
    else:
        codes = y
    if clips.task == "multilabel":
        same = (y @ y.T) > 0
    else:
        same = codes[:, None] == codes[None, :]
    if len(names) > MOST_NAMES:
        common = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
        place = np.full(len(names), MOST_NAMES - 1)
        place[common[: MOST_NAMES - 1]] = np.arange(MOST_NAMES - 1)
        names = [names[i] for i in common[: MOST_NAMES - 1]] + ["others"]
        return place[codes], names, same, told
    return codes, names, same, told
