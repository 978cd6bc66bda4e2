"""The four cases of transfer learning: a large or small target, similar to the source or not.

The rule of thumb is older than any of this (small and similar: probe the last layers; large and
different: train anew). Here it is computable, and its thresholds are stated:

- large: 100 clips a class or more (the median class). A judgement, not a measurement.
- similar: the last layer alone, which is the most tied to the source's task, scores at least 0.8 of
  what all layers score, both above chance and by nearest clips. A judgement too: where early layers
  transferred best, in Choi et al. 2017, the last of five had 0.82 of the best score on average.
  Or: recordings of the source were given, and a linear classifier can hardly tell the two apart
  (proxy A-distance below 1, an error of a quarter or more). The converse does not hold: other
  microphones tell corpora apart, whatever they sound of.

What to do for "small and different" follows Choi et al. 2017 (ISMIR, figure 3) and Niizumi et al.
2022 (composing general audio representation, table III): early layers carry most of what transfers,
so all of them are read by one regularised linear probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.strategy import Strategy

LARGE = 100.0
SIMILAR = 0.8
ALIKE = 1.0

DO: dict[str, tuple[str, tuple[str, ...], str]] = {
    "small, similar": (
        "Keep the network frozen and fit a probe: of all layers, or of the last alone where it "
        "must be small. If more is wanted, unfreeze the last layers only.",
        ("all", "last", "finetune_last"),
        "Augment and average some seeds before unfreezing more.",
    ),
    "small, different": (
        "The hard case. Keep the network frozen and read all layers, the early ones above all, by "
        "a regularised linear probe; see whether a choice of layers or MFCCs do as well.",
        ("all", "chosen", "finetune_last", "mfcc"),
        "Augment, average some seeds, and look for a network whose source is closer; more clips "
        "help most.",
    ),
    "large, similar": (
        "Fine-tune the whole network from its weights; the probe of all layers is the floor it has "
        "to beat.",
        ("finetune_all", "all"),
        "With so many clips the gain of averaging seeds is small.",
    ),
    "large, different": (
        "Train from scratch, or fine-tune the whole network from its weights, which is quicker and "
        "seldom worse; the probe of all layers is the floor that both have to beat.",
        ("finetune_all", "scratch", "all"),
        "Take a larger network than the small one here once training from scratch pays.",
    ),
    "no source": (
        "The network has learnt from nothing: probe it as it is, or train it; a pre-trained one "
        "(`ossicle backbones`) is likely to do better.",
        ("all", "scratch"),
        "Augment, and average some seeds.",
    ),
}


def place(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Which case a task is, why, and what to do.

    Args:
        facts: of ``ossicle.advise.measure``.

    Returns:
        case, size ("large" or "small"), similarity ("similar", "different" or None), why
        (sentences), do (words), names (of alternatives, in that order), also (words).
    """
    size, network = facts["size"], facts["network"]
    clips, groups = size["median_clips"], size["median_groups"]
    large = clips >= LARGE
    unit = "a class" if size["task"] != "regression" else "for every tenth of the numbers"
    why = [
        f"{clips:.0f} clips {unit} (median), from {groups:.0f} groups: "
        f"{'large' if large else 'small'}; the line is drawn at {LARGE:.0f}"
    ]
    if large and groups < LARGE / 10:
        why.append("few groups: it is smaller than it looks, as clips of a group resemble another")
    if not network["pretrained"]:
        why.append(f"{network['name']} has no trained weights")
        key, similarity = "no source", None
    else:
        share = facts["last_to_best"]
        similar = share >= SIMILAR
        why.append(
            f"the last layer alone reaches {share:.2f} of what all layers do (above chance, by "
            f"nearest clips): {'similar' if similar else 'different'}; the line is at {SIMILAR}"
        )
        distance = facts["distance"]
        if distance is not None:
            apart = distance["proxy_a"]["value"]
            why.append(
                f"proxy A-distance from the recordings of the source {apart:.2f} of 2: "
                + (
                    "alike, which settles it"
                    if apart < ALIKE
                    else "told apart, which other microphones alone can do"
                )
            )
            similar = similar or apart < ALIKE
        similarity = "similar" if similar else "different"
        key = f"{'large' if large else 'small'}, {similarity}"
    words, names, also = DO[key]
    return {
        "case": key,
        "size": "large" if large else "small",
        "similarity": similarity,
        "why": why,
        "do": words,
        "names": list(names),
        "also": also,
    }


def further(case: str, alternatives: Mapping[str, Strategy]) -> list[Strategy]:
    """What the case suggests beyond the alternatives whose score is predicted: augmentation and an
    ensemble of three seeds, of the deepest training that the case has."""
    wanted = [name for name in DO[case][1] if name in alternatives]
    trained = [alternatives[name] for name in wanted if alternatives[name].kind != "probe"]
    if not trained:
        return []
    settings: FinetuneSettings = replace(trained[0].training, augment="mix")
    found = [replace(trained[0], settings=settings)]
    if case.startswith("small"):
        found.append(replace(trained[0], settings=replace(settings, seeds=3)))
    return found
