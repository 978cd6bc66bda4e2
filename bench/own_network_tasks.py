"""Tasks to choose a network by, out of what it is trained on: `own_network_tasks.py FOLDER`.

FOLDER holds the corpus' manifest, corpus.csv, or one a source: corpus.csv, notes.csv, tunes.csv,
words.csv. build/own/dev/NAME.csv are small labelled tasks; the packages, presets, voices or words
that they ask for are in no training table. build/own/train.csv is what is left to train on;
train-1_2.csv, train-1_4.csv and train-1_8.csv are nested parts of its hours; build/own/dev.json
says what was done. Nothing of the suites that the network is reported on is in any of them, so that
all that has to be chosen can be chosen here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ossicle import audio
from ossicle.errors import AudioError
from ossicle.record import replaced, write_json

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "own"
COLUMNS = ("path", "label", "group", "package", "version", "licence", "onset", "offset")
SEED = 8
MOST = 600  # clips of a task
LONGEST_S = 5.0  # of a clip, from its beginning
# Groups that each class is held out in, so that it can be learnt in some and tested in others.
OF_CLASS = 3
# Of a source's audio, what one task may take away from training, or twice that where it is little.
SHARE = 0.12
PARTS = (2, 4, 8)
# Of a package's sounds, those that are a kind of audio, not what is heard in it.
KINDS = ("music", "speech", "effects")
# Folders that hold what one person, or one character of a game, says.
VOICE = re.compile(r"/sounds?/(?:player|announcer)/([^/]+)/|/taunts/([^/]+)/")
LEAST_OF_VOICE = 12
LEAST_PIECES, N_MUSIC = 6, 8
N_WORDS = 30
PITCHES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")


class Made(NamedTuple):
    """The tasks of one source.

    Attributes:
        held: positions of the source's rows that are not trained on.
        tasks: name -> what it asks, and its clips: path, label, group.
    """

    held: np.ndarray
    tasks: dict[str, tuple[str, pd.DataFrame]]


def facets(label: str) -> dict[str, str]:
    """ "package:a;sound:bell" -> {"package": "a", "sound": "bell"}; what has two values is none."""
    found: dict[str, set[str]] = {}
    for part in label.split(";"):
        name, _, value = part.partition(":")
        if name and value:
            found.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def read_source(path: Path) -> pd.DataFrame:
    """A manifest with absolute paths, and a column FACET: for each facet."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    folder = path.parent.absolute()
    table["path"] = [os.path.normpath(folder / name) for name in table["path"]]
    parsed = [facets(label) for label in table["label"]]
    # The colon keeps the facet "package" and the column of that name apart.
    for facet in sorted({key for one in parsed for key in one}):
        table[f"{facet}:"] = pd.Series([one.get(facet) for one in parsed], dtype=object)
    return table


def task_of(table: pd.DataFrame, label: pd.Series, group: pd.Series, of_group: int) -> pd.DataFrame:
    """At most `MOST` clips, of each class as many as may be, from many groups.

    Args:
        table: with paths.
        label, group: of its rows; rows without a label do not count.
        of_group: clips of one class and group at most.
    """
    columns = ["path", *(c for c in ("onset", "offset") if c in table)]
    clips = table[columns].assign(label=label, group=group)[label.notna() & group.notna()]
    clips = clips.sample(frac=1.0, random_state=SEED)
    # Round by round over the groups of a class, so that a large one does not crowd others out.
    turn = clips.groupby(["label", "group"]).cumcount()
    clips = clips.assign(turn=turn)[turn < of_group].sort_values("turn", kind="stable")
    of = clips.groupby("label")
    clips = clips[clips["label"].map((of["group"].nunique() >= OF_CLASS) & (of.size() >= 4))]
    n_classes = max(clips["label"].nunique(), 1)
    clips = clips.groupby("label").head(MOST // n_classes)
    return clips.drop(columns="turn").sort_index()


def covering(counts: pd.DataFrame, lost: pd.Series, groups: int) -> list[str]:
    """Groups that hold each class several times; next is always what serves most for its seconds.

    Args:
        counts: groups x classes, clips.
        lost: seconds of each group, which training loses: of all, twice `SHARE` at most.
        groups: that a class needs, or half of those that it has, but `OF_CLASS` at least.
    """
    has = counts > 0
    has = has.loc[:, has.sum() >= OF_CLASS]
    need = (has.sum() // 2).clip(OF_CLASS, groups)
    chosen: list[str] = []
    total, most = 0.0, 2 * SHARE * lost.sum()
    while (need > 0).any():
        rest = [g for g in has.index if g not in chosen and total + lost[g] <= most]
        serves = has.loc[rest, need[need > 0].index].sum(axis=1)
        serves = serves[serves > 0]
        if serves.empty:
            break
        # By seconds alone, tiny packages of one sound each would be taken before all others.
        best = (serves / (30.0 + lost[serves.index])).idxmax()
        chosen.append(best)
        total += float(lost[best])
        need -= has.loc[best].astype(int)
    return chosen


def drawn(groups: pd.Series, rng: np.random.Generator, share: float, least: int) -> list[str]:
    """Groups in random order up to a share of the rows, but `least` at least."""
    rows_of = groups.value_counts().sort_index()
    order = rng.permutation(rows_of.index.to_numpy(object))
    total = rows_of[order].cumsum().to_numpy()
    n = int(np.searchsorted(total, share * len(groups), side="right"))
    return [str(name) for name in order[: max(least, n)]]


def from_packages(table: pd.DataFrame, rng: np.random.Generator) -> Made:
    """What sounds, who speaks and whose music it is, from the names of files and packages."""
    said = table["sound:"]
    sound = said.where(~said.isin(KINDS))
    effects = ~said.isin(KINDS)
    named = sound.notna()
    counts = pd.crosstab(table["group"][named], sound[named])
    lost = table["seconds"][effects].groupby(table["group"][effects]).sum()
    heard = table["group"].isin(covering(counts, lost, 6)) & effects
    # Whole folders of a voice; what else is in its package says nothing of it.
    found = [VOICE.search(path.lower()) for path in table["path"]]
    who = pd.Series([m and next(g for g in m.groups() if g) for m in found], table.index, object)
    who = (table["package"] + "/" + who).where(who.notna())
    voice = who.map(who.value_counts()) >= LEAST_OF_VOICE
    # Music of packages with enough pieces, of those that take least away from training.
    music = said.eq("music")
    n_pieces = table["path"][music].groupby(table["group"][music]).nunique()
    lost = table["seconds"][music].groupby(table["group"][music]).sum()
    several = lost[n_pieces[n_pieces >= LEAST_PIECES].index].sort_values(kind="stable")
    music &= table["group"].isin(several.index[:N_MUSIC])
    tasks = {
        "sounds": (
            "what is heard, by the names of files; effects unheard, folds by package",
            task_of(table[heard], sound[heard], table["group"][heard], of_group=12),
        ),
        "game_voices": (
            "who speaks, by the names of folders; voices unheard, folds by file, as a voice is in "
            "one game only",
            task_of(table[voice], who[voice], table["path"][voice], of_group=1),
        ),
        "game_music": (
            "which game's or album's music; music unheard, folds by file",
            task_of(table[music], table["group"][music], table["path"][music], of_group=4),
        ),
    }
    return Made(np.flatnonzero(heard | voice | music), tasks)


def from_notes(table: pd.DataFrame, rng: np.random.Generator) -> Made:
    """Which pitch and which instrument, in rendered notes of presets that are not trained on."""
    counts = pd.crosstab(table["group"], table["instrument:"])
    lost = table["seconds"].groupby(table["group"]).sum()
    mine = table["group"].isin(covering(counts, lost, 4))
    part = table[mine]
    pitch = pd.to_numeric(part["pitch:"]).map(lambda n: PITCHES[int(n) % 12], na_action="ignore")
    tasks = {
        "pitch_class": (
            "which of 12 pitch classes; presets unheard, folds by preset",
            task_of(part, pitch, part["group"], of_group=MOST),
        ),
        "instrument": (
            "which family of instruments; presets unheard, folds by preset",
            task_of(part, part["instrument:"], part["group"], of_group=MOST),
        ),
    }
    return Made(np.flatnonzero(mine), tasks)


def from_words(table: pd.DataFrame, rng: np.random.Generator) -> Made:
    """Which word, of words that are not trained on; which language, of such voices."""
    voice, word, language = table["voice:"], table["word:"], table["language:"]
    most = language[word.notna()].value_counts().index[0]
    # Digits and letters stay: there are few, and much is made of them.
    long = word.where(
        (language == most) & (word.str.replace(r"^.*_", "", regex=True).str.len() > 1)
    )
    voices = voice.groupby(long).nunique().sort_index()
    order = rng.permutation(voices.index[voices >= min(MOST // N_WORDS, voices.max())].to_numpy())
    asked = long.isin(order[:N_WORDS])
    unheard = voice.isin(drawn(voice, rng, SHARE, OF_CLASS)) & ~asked
    # Each voice says items of its own, so that no text is both learnt and tested.
    text = word.fillna(table["path"])
    place = {name: i for i, name in enumerate(sorted(text.unique()))}
    turn = {name: i for i, name in enumerate(sorted(voice[unheard].unique()))}
    own = unheard & (text.map(place) % max(len(turn), 1) == voice.map(turn))
    own |= unheard & word.isna()
    tasks = {
        "words": (
            f"which of {N_WORDS} words; words unheard, folds by voice",
            task_of(table[asked], word[asked], voice[asked], of_group=4),
        ),
        "languages": (
            "which language; voices unheard, folds by voice, whose words are its own",
            task_of(table[own], language[own], voice[own], of_group=MOST),
        ),
    }
    return Made(np.flatnonzero(asked | unheard), tasks)


def from_tunes(table: pd.DataFrame, rng: np.random.Generator) -> Made:
    """Which piece, of pieces that are not trained on: cuts are its only repetition."""
    mine = table["group"].isin(drawn(table["group"], rng, 2 * SHARE, 12))
    part = table[mine]
    clips = task_of(part, part["group"], part["path"], of_group=MOST)
    tasks = {"pieces": ("which piece of music; pieces unheard, folds by cut", clips)}
    return Made(np.flatnonzero(mine), tasks)


Builder = Callable[[pd.DataFrame, np.random.Generator], Made]
SOURCES: Mapping[str, Builder] = {
    "corpus": from_packages,
    "notes": from_notes,
    "tunes": from_tunes,
    "words": from_words,
}


def read_all(folder: Path) -> dict[str, pd.DataFrame]:
    """Source -> its rows; corpus.csv may hold all of them, told by its column `kind`."""
    found: dict[str, pd.DataFrame] = {}
    for name in SOURCES:
        path = folder / f"{name}.csv"
        if name in found:
            continue
        if not path.is_file():
            print(f"{path}: not there, left out", file=sys.stderr)
            continue
        table = read_source(path)
        kind = table.get("kind", pd.Series(name, table.index))
        for source, rows in table.groupby(kind.where(kind.isin(list(SOURCES)), name)):
            found[str(source)] = rows.reset_index(drop=True)
    return found


def lengths(table: pd.DataFrame, kept: Path) -> np.ndarray:
    """(rows,) seconds, 0 of files that cannot be read. A file is looked into once, by its size."""
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    for path in table["path"].unique():
        size = Path(path).stat().st_size if Path(path).is_file() else 0
        if known.get(path, [-1])[0] != size:
            try:
                known[path] = [size, audio.info(path).duration_s]
            except AudioError:
                known[path] = [size, 0.0]
    write_json(kept, known)
    whole = table["path"].map({path: told[1] for path, told in known.items()}).to_numpy(float)
    onset, offset = (
        pd.to_numeric(table.get(name, pd.Series(np.nan, table.index))).to_numpy(float)
        for name in ("onset", "offset")
    )
    end = np.where(np.isnan(offset), whole, np.minimum(offset, whole))
    return np.maximum(end - np.nan_to_num(onset), 0.0)


def nested_parts(table: pd.DataFrame, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Denominator -> rows of that part of the hours; each holds the next, of all sources alike.

    Groups in random order, the last one cut, so that a part has fewer packages and voices, not
    less of each: as more hours would bring others.
    """
    inside = {k: np.zeros(len(table), bool) for k in PARTS}
    for source in table["source"].unique():
        rows = np.flatnonzero(table["source"] == source)
        groups = table["group"].iloc[rows]
        place = {g: i for i, g in enumerate(rng.permutation(np.sort(groups.unique().astype(str))))}
        order = rows[np.lexsort((rng.random(len(rows)), groups.map(place)))]
        total = np.cumsum(table["seconds"].to_numpy()[order])
        for k in PARTS:
            inside[k][order[total <= total[-1] / k]] = True
    return {k: np.flatnonzero(rows) for k, rows in inside.items()}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """A manifest whose paths are relative to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [os.path.relpath(name, path.parent.absolute()) for name in table["path"]]
    columns = [c for c in COLUMNS if c in table]
    with replaced(path) as part:
        table.assign(path=names)[columns].to_csv(part, index=False)


def write_task(clips: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A task with copies of its clips, of each the first seconds, beside its table.

    Copies, so that a corpus that is made anew does not change what was chosen by. What cannot be
    read, or is silent, is left out.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    given = clips.get("onset", pd.Series("", index=clips.index))
    rows = []
    for row, onset in zip(clips.to_dict("records"), pd.to_numeric(given).fillna(0.0), strict=True):
        try:
            end = onset + LONGEST_S
            end = min(end, float(row["offset"])) if row.get("offset") else end
            heard = audio.load(row["path"], onset=onset, offset=end, allow_silent=False)
        except AudioError:
            continue
        # Lossy formats overshoot, and integers cannot hold that.
        samples = heard.samples / max(1.0, float(np.abs(heard.samples).max()))
        copy = folder / f"{len(rows):03d}.flac"
        audio.save(copy, audio.Audio(samples, heard.sample_rate))
        rows.append({"path": str(copy), "label": row["label"], "group": row["group"]})
    if len(rows) < len(clips):
        print(f"{path}: {len(clips) - len(rows)} clips cannot be read", file=sys.stderr)
    table = pd.DataFrame(rows)
    write_table(table, path)
    return table


def main() -> None:
    """Read the corpus, write tasks and tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    trained: list[pd.DataFrame] = []
    told: dict[str, dict[str, Any]] = {}
    sources = read_all(arguments.folder)
    if not sources:
        sys.exit(f"{arguments.folder}: none of {', '.join(f'{s}.csv' for s in SOURCES)}")
    # Tasks of an earlier corpus would be taken for this one's.
    shutil.rmtree(out / "dev", ignore_errors=True)
    for name, table in sources.items():
        table["source"] = name
        table["seconds"] = lengths(table, out / f"lengths-{name}.json")
        table = table[table["seconds"] > 0].reset_index(drop=True)
        # A stream of its own for each source: one more of them leaves the others' draws alone.
        made = SOURCES[name](table, np.random.default_rng([SEED, *name.encode()]))
        for task, (about, clips) in made.tasks.items():
            clips = write_task(clips, out / "dev" / f"{task}.csv")
            told[task] = {
                "source": name,
                "about": about,
                "clips": len(clips),
                "groups": int(clips["group"].nunique()),
                "classes": sorted(clips["label"].unique()),
            }
        keep = np.setdiff1d(np.arange(len(table)), made.held)
        held = sorted(set(table["group"].iloc[made.held]))
        hours = float(table["seconds"].iloc[made.held].sum() / 3600)
        told[f"held out of {name}"] = {"rows": len(made.held), "hours": hours, "groups": held}
        trained.append(table.iloc[keep])
    whole = pd.concat(trained, ignore_index=True)
    tables = {"train": np.arange(len(whole))}
    parts = nested_parts(whole, np.random.default_rng([SEED, 1]))
    tables |= {f"train-1_{k}": rows for k, rows in parts.items()}
    for name, rows in tables.items():
        write_table(whole.iloc[rows], out / f"{name}.csv")
        told[name] = {
            "rows": len(rows),
            "hours": float(whole["seconds"].iloc[rows].sum() / 3600),
            "groups": int(whole["group"].iloc[rows].nunique()),
        }
    write_json(out / "dev.json", {"seed": SEED, "corpus": str(arguments.folder), **told})
    for name, about in told.items():
        numbers = {k: v if isinstance(v, int | float | str) else len(v) for k, v in about.items()}
        print(name, numbers)


if __name__ == "__main__":
    main()
