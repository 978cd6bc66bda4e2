"""The weights that the package carries, made anew: `python bench/weights.py` (`make weights`).

Collects the training audio, sets the development tasks aside, trains (hours; on a GPU where there
is one), rounds the network into src/ossicle/weights/stapes.safetensors and writes its card beside
it. What is done is not done again, and a stopped step goes on; so the same command, run once more
after `python bench/own_network.py` has measured the network, puts the scores on the card.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from own_network_runs import FINAL, FIRST, NAME, answer, bundle_of, words

from ossicle.backbones import WEIGHTS
from ossicle.backbones.packaged import write_packaged
from ossicle.model import create_model
from ossicle.pretrain.teachers import network_of
from ossicle.record import replaced

ROOT = Path(__file__).resolve().parents[1]
CORPUS = "build/own/corpus"
OUT = ROOT / "src" / "ossicle" / "weights"
SCORES = ROOT / "docs" / "results" / "own_network.json"
LICENCE = "MIT"
# What it is bad at that no number on the card says; sentences.
BAD_AT: tuple[str, ...] = (
    "Sounds of cities and nature: little of what it learnt from was recorded outdoors, and "
    "published networks that heard AudioSet know these better.",
)


class Step(NamedTuple):
    """A command, and the file that is there once it, or what it is for, is done."""

    words: Sequence[str]
    leaves: Path


# What the network is measured on is kept out of its audio: open tasks that are built, and the
# measuring sets (the folder `data` in OSSICLE_SHARED).
SHARED = "../shared"
MEASURED = [
    f"{SHARED}/data/{name}"
    for name in ("esc10", "fsdd", "speech_commands_6", "urbansound_2folds", "snoring")
]
KEPT_OUT = [word for path in MEASURED for word in ("--evaluation", path)]
RUN = [
    Step(["ossicle", "data", "get", "all"], ROOT / CORPUS / "corpus.json"),
    Step(["ossicle", "data", "corpus", "-o", CORPUS, *KEPT_OUT], ROOT / CORPUS / "corpus.json"),
    Step(["python", "bench/own_network_tasks.py", CORPUS], ROOT / "build" / "own" / "dev.json"),
    Step(["ossicle", *words(FIRST)], bundle_of(FIRST) / "config.json"),
    Step(["ossicle", *words(FINAL)], bundle_of(FINAL) / "config.json"),
]


def run(step: Step) -> None:
    """Do what is not done.

    Raises:
        SystemExit: it failed; the same command goes on.
    """
    line = shlex.join(step.words)
    if step.leaves.is_file():
        print(f"done already: {line}", flush=True)
        return
    print(line, flush=True)
    start = ["-m", "ossicle.cli"] if step.words[0] == "ossicle" else []
    told = "--json" in step.words
    shared = Path(os.environ.get("OSSICLE_SHARED", ROOT / SHARED)).absolute()
    real = [w.replace(f"{SHARED}/", f"{shared}/", 1) for w in step.words[1:]]
    missing = [word for word in real if word.startswith(f"{shared}/") and not Path(word).is_dir()]
    if missing:
        sys.exit(f"{missing[0]}: is not there; set OSSICLE_SHARED to what holds the measuring data")
    done = subprocess.run(
        [sys.executable, *start, *real],
        cwd=ROOT,
        stdout=subprocess.PIPE if told else None,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"stopped in: {line}\nrun this again to go on")
    if told:
        # Where bench/own_network.py looks for what the run said of itself.
        kept = step.leaves.parent.with_suffix(".json")
        kept.write_text(done.stdout.splitlines()[-1], encoding="utf-8")


def card(
    config: Mapping[str, Any],
    size: int,
    corpus: Mapping[str, Any] | None,
    told: Mapping[str, Any],
    scores: Mapping[str, Any] | None,
    commands: Sequence[str],
) -> str:
    """The model card, Markdown.

    Args:
        config: config.json of the bundle; its ``info`` has ``training``, the run's record, and
            ``teachers``, their licences by name.
        size: of the file, in bytes.
        corpus: corpus.json; None where it is not at hand.
        told: what the run said of itself, and in "before" what the one said that it began with.
        scores: docs/results/own_network.json; None where nothing was measured.
        commands: that made it, in order.
    """
    name, front = config["backbone"]["name"], config["frontend"]
    model = create_model(name, **config["backbone"]["config"])
    lines = [
        f"# {name}",
        "",
        f"ossicle's own network for sound, speech and music: {model.num_parameters:,} parameters, "
        f"{size / 1e6:.2f} MB in half precision, {len(model.layers)} layers, audio at "
        f"{front['sample_rate']:,} Hz. It comes with the package and needs no download: "
        f'`ossicle.create_model("{name}", pretrained=True)`. It turns sound into features; it has '
        "no classes.",
        "",
        "## How it was made",
        "",
        "```",
        *commands,
        "```",
        "",
        *_training(config["info"], told),
        "",
        "## Teachers",
        "",
        *_teachers(config["info"].get("teachers") or {}),
        "",
        "## Data",
        "",
        *(_data(corpus, told) if corpus else ["Not at hand: corpus.json of the training audio."]),
        "",
        "## Scores",
        "",
        *(_scores(scores) if scores else ["Not measured yet: `python bench/own_network.py`."]),
        "",
        "## What it is bad at",
        "",
        *(f"- {sentence}" for sentence in _bad_at(front, scores)),
        "",
        "## Licence",
        "",
        f"{LICENCE}, as the package. The file holds this network's parameters alone: no recording, "
        "and nothing of the teachers' files.",
        *(_packages(corpus) if corpus else []),
    ]
    return "\n".join(lines) + "\n"


def _training(info: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    yield f"- {info['weights']}"
    yield from _run(info["training"], told)
    before = info.get("begun_with") or {}
    if "training" in before:
        yield f"- the run that it began with, {before['bundle']}:"
        yield from (f"  {line}" for line in _run(before["training"], told.get("before") or {}))


def _run(about: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    seed = about["seed"]
    state = about.get("commit") or {}
    commit = state.get("commit", "")[:12] or "not known"
    commit += " with changes" if state.get("modified") else ""
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    yield f"- seed: {seed}"
    if "seconds" in told:
        yield f"- took {told['seconds'] / 3600:.1f} h of training, {told['steps']:,} steps"
    yield f"- ossicle {about['ossicle']}, commit {commit}, {about['python']}, {versions}"
    yield f"- machine: {about['platform']['cpu']}, {about['time'][:10]}"
    chosen = about["arguments"]
    yield f"- accelerator: {chosen['accelerator']}; precision: {chosen['precision']}"


def _teachers(licences: Mapping[str, str]) -> list[str]:
    if not licences:
        return ["None."]
    rows = ["| network | what it learnt from | licence of its weights |", "|---|---|---|"]
    for name, licence in licences.items():
        rows.append(f"| {name} | {WEIGHTS[network_of(name)].description} | {licence} |")
    return rows


def _data(corpus: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    of = f"{corpus['hours']:.1f} h of openly licensed audio: {corpus['clips']:,} clips of "
    line = f"{of}{len(corpus['by_package']):,} packages and rendered sets, seed {corpus['seed']}."
    if "hours" in told:
        line += f" Trained on {told['hours']:.1f} h of it."
    yield from (line, "")
    left = ", ".join(corpus["evaluation"])
    copies = sum(corpus["near_copies"].values())
    yield f"Kept out, with {copies:,} near copies: {left}."
    for heading, hours in (("source", corpus["by_kind"]), ("licence", corpus["by_licence"])):
        yield from ("", f"| {heading} | hours |", "|---|---|")
        for name, value in sorted(hours.items(), key=lambda item: -item[1]):
            yield f"| {str(name).replace('|', '/')} | {value:.1f} |"


def _packages(corpus: Mapping[str, Any]) -> Iterator[str]:
    """Whose work it learnt from."""
    yield from ("", "## Packages of the data", "")
    yield from ("| package | version | licence | hours |", "|---|---|---|---|")
    known = {entry["package"]: entry for entry in corpus["packages"]}
    for name, hours in sorted(corpus["by_package"].items()):
        entry = known.get(name, {})
        version, licence = (entry.get(key) or "-" for key in ("version", "licence"))
        yield f"| {name} | {version} | {str(licence).replace('|', '/')} | {hours:.2f} |"


def _scores(scores: Mapping[str, Any]) -> Iterator[str]:
    made = scores["record"]["time"][:10]
    yield (
        "Frozen, ridge on every layer, grouped cross-validation, 95 % intervals over groups; "
        f"`{scores['command']}`, {made}."
    )
    if "five" in scores:
        mine = scores["five"]["rows"][scores["five"]["network"]]
        yield from ("", "| set | score | over yamnet, all layers |", "|---|---|---|")
        for name, score in mine["sets"].items():
            yield f"| {name} | {_shown(score)} | {_shown(mine['over_yamnet'][name], '+')} |"
        yield f"| mean | {_shown(mine['mean'])} | {_shown(mine['mean_over_yamnet'], '+')} |"
    if "open" in scores:
        part = scores["open"]
        yield ""
        yield (
            f"Open suite of `ossicle bench`: mean {_shown(part['mean'])}, place {part['rank']} of "
            f"{part['of']} representations of at most 10 M parameters."
        )


def _bad_at(front: Mapping[str, Any], scores: Mapping[str, Any] | None) -> Iterator[str]:
    yield f"Above {front['fmax']:,.0f} Hz and below {front['fmin']:,.0f} Hz it hears nothing."
    if scores is None:
        yield "Against other networks: not measured yet."
    else:
        if "five" in scores:
            mine = scores["five"]["rows"][scores["five"]["network"]]
            for name, gain in mine["over_yamnet"].items():
                if _number(gain["high"]) is not None and gain["high"] < 0:
                    yield f"{name}: below yamnet, all layers, by {_shown(_negative(gain))}."
        for other in scores.get("open", {}).get("differences", []):
            if _number(other["high"]) is not None and other["high"] < 0:
                yield f"Open suite: below {other['to']} by {_shown(_negative(other))}."
    yield from BAD_AT


def _negative(gain: Mapping[str, Any]) -> dict[str, float]:
    return {"value": -gain["value"], "low": -gain["high"], "high": -gain["low"]}


def _number(value: Any) -> float | None:
    """JSON has texts where there is no number."""
    return float(value) if isinstance(value, int | float) else None


def _shown(score: Mapping[str, Any], sign: str = "") -> str:
    value, low, high = (_number(score[key]) for key in ("value", "low", "high"))
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def read(path: Path) -> dict[str, Any] | None:
    """A JSON object, None where the file is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main() -> None:
    """All steps, the weights, the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="folder of weights and card")
    asked = parser.parse_args()
    for step in RUN:
        run(step)
    weights = write_packaged(bundle_of(FINAL), asked.out / f"{NAME}.safetensors")
    text = card(
        json.loads((bundle_of(FINAL) / "config.json").read_text(encoding="utf-8")),
        weights.stat().st_size,
        read(ROOT / CORPUS / "corpus.json"),
        {**answer(FINAL), "before": answer(FIRST)},
        read(SCORES),
        [shlex.join(step.words) for step in RUN],
    )
    with replaced(weights.with_suffix(".md")) as part:
        part.write_text(text, encoding="utf-8")
    print(f"{weights}: {weights.stat().st_size:,} bytes, card beside it")


if __name__ == "__main__":
    main()
