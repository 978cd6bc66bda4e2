"""`ossicle study transfer`: sources by targets, and how much of a target's data a source saves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli_options import Json, NFolds, Seed, Set, Workers
from ossicle.console import answer, counts, progress_bar, say
from ossicle.errors import DataError

if TYPE_CHECKING:
    from ossicle.finetune.settings import FinetuneSettings

SPEC = "SPEC or SET=SPEC"
SIZES = "10%,20%,40%,70%,100%"
Named = list[str] | None


def study_transfer(
    sets: Annotated[
        list[str],
        typer.Argument(
            metavar="SET...",
            help="Two or more sets of clips: a path, or NAME=PATH. Each is source and target.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder of tables, figures and trained networks.")
    ] = Path("transfer"),
    source: Annotated[Named, typer.Option(help="Only this set is a source; repeatable.")] = None,
    target: Annotated[Named, typer.Option(help="Only this set is a target; repeatable.")] = None,
    folds: Annotated[
        Named, typer.Option(metavar=SPEC, help="As for evaluate, of all sets or of one.")
    ] = None,
    groups: Annotated[Named, typer.Option(metavar=SPEC, help="As for evaluate.")] = None,
    labels: Annotated[Named, typer.Option(metavar=SPEC, help="As for evaluate.")] = None,
    n_folds: NFolds = 5,
    test_folds: Annotated[
        Named, typer.Option(metavar="N or SET=N", help="Test only the first N folds.")
    ] = None,
    sizes: Annotated[
        str, typer.Option(help="Shares of the target's training part; 100 % is added.")
    ] = SIZES,
    backbone: Annotated[
        str, typer.Option(help="A network to train, from `ossicle backbones`.")
    ] = "resnet18",
    keywords: Set = None,
    multiscale: Annotated[
        bool, typer.Option(help="Also behind the multiscale input, where the network has it.")
    ] = True,
    epochs: Annotated[int, typer.Option(min=1, help="On the target, in both arms.")] = 30,
    source_epochs: Annotated[
        int | None, typer.Option(min=1, help="On the source; default: the same.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 1e-3,
    crop: Annotated[
        float | None,
        typer.Option(help="Seconds heard at once, at most; default: a set's median clip."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Of training: augment=mask."),
    ] = None,
    probes: Annotated[
        bool, typer.Option(help="Also a ridge on the frozen source, and on random weights.")
    ] = True,
    seeds: Annotated[int, typer.Option(min=1, help="Repeats of everything.")] = 3,
    seed: Seed = 0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Train on one set, go on on another: is it better than scratch? (McMahan & Rao 2018)."""
    from dataclasses import replace

    from ossicle.backbones import BACKBONES
    from ossicle.datasets.clips import read_clips
    from ossicle.keywords import parse_keywords
    from ossicle.line import count_workers
    from ossicle.study.transfer_matrix import transfer_study
    from ossicle.study.transfer_plan import TransferPlan

    paths = _named_paths(sets)
    said = {
        "folds": _by_set(paths, folds, "--folds"),
        "groups": _by_set(paths, groups, "--groups"),
        "labels": _by_set(paths, labels, "--labels"),
    }
    known = BACKBONES.get(backbone)
    config = parse_keywords(keywords or [], known, backbone) if known else {}
    settings = _settings(options or [], epochs, batch_size, learning_rate, crop)
    first = None if source_epochs is None else replace(settings, epochs=source_epochs)
    plan = TransferPlan(
        backbone=backbone,
        config=config,
        multiscale=multiscale,
        shares=_shares(sizes),
        seeds=seeds,
        seed=seed,
        settings=settings,
        source_settings=first,
        probes=probes,
        n_folds=n_folds,
        test_folds=_test_folds(paths, test_folds),
    )
    plan.checked()
    clips = {
        name: read_clips(path, **{key: values.get(name) for key, values in said.items()})
        for name, path in paths.items()
    }
    say([f"note: {name}: {note}" for name, some in clips.items() for note in some.notes])
    asked: dict[str, Any] = {
        **{"source": source, "target": target, "folds": folds, "groups": groups},
        **{"labels": labels, "n_folds": n_folds if n_folds != 5 else None},
        **{"test_folds": test_folds, "sizes": sizes if sizes != SIZES else None},
        **{"backbone": backbone if backbone != "resnet18" else None, "set": keywords},
        **{"multiscale": multiscale, "epochs": epochs, "source_epochs": source_epochs},
        **{"batch_size": batch_size, "learning_rate": learning_rate, "crop": crop},
        **{"option": options, "probes": probes, "seeds": seeds, "seed": seed or None},
    }
    command = shlex.join(["ossicle", "study", "transfer", *sets, "-o", str(out), *_words(asked)])
    with progress_bar("cells") as tick:
        result = transfer_study(
            clips,
            out,
            sources=source,
            targets=target,
            plan=plan,
            workers=count_workers(workers),
            command=command,
            progress=counts(tick),
        )
    notes = [f"note: {note}" for note in result["notes"]]
    answer([*result["text"], *notes, f"tables and figures: {out}"], result, as_json)


def _words(asked: dict[str, Any]) -> list[str]:
    """Options as they are typed; those that are off or not given are left out."""
    words: list[str] = []
    for name, value in asked.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words += [] if value else [f"--no-{option}"]
        elif value is not None:
            for each in value if isinstance(value, list) else [value]:
                words += [f"--{option}", f"{each:g}" if isinstance(each, float) else str(each)]
    return words


def _named_paths(sets: Sequence[str]) -> dict[str, Path]:
    """NAME=PATH or PATH, which is called as its folder or file -> path."""
    paths: dict[str, Path] = {}
    for text in sets:
        name, equals, rest = text.partition("=")
        path = Path(rest) if equals and not Path(text).exists() else Path(text)
        if not equals or Path(text).exists():
            name = path.resolve().stem if path.is_file() else path.resolve().name
        if not name or (equals and not rest):
            raise DataError(f"{text!r}: write a set as PATH or NAME=PATH")
        if name in paths:
            raise DataError(f"two sets are called {name!r}: name one of them, as NAME={path}")
        paths[name] = path
    return paths


def _by_set(paths: dict[str, Path], texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """What an option says of each set: SPEC is of all, SET=SPEC of one and has precedence."""
    everywhere: dict[str, str] = {}
    own: dict[str, str] = {}
    for text in texts or ():
        name, equals, rest = text.partition("=")
        # A pattern may hold a "=" of its own.
        if equals and name in paths:
            values, found = own, {name: rest}
        elif equals and not text.startswith("/"):
            raise DataError(f"{option} {text!r}: there is no set {name!r}; name {', '.join(paths)}")
        else:
            values, found = everywhere, dict.fromkeys(paths, text)
        if set(found) & set(values):
            raise DataError(f"{option} is given twice: {text!r}")
        values.update(found)
    return {**everywhere, **own}


def _test_folds(paths: dict[str, Path], texts: Named) -> dict[str, int]:
    numbers = {}
    for name, text in _by_set(paths, texts, "--test-folds").items():
        if not text.isdecimal():
            raise DataError(f"--test-folds {text!r}: write a number of folds, or SET=NUMBER")
        numbers[name] = int(text)
    return numbers


def _shares(text: str) -> list[float]:
    try:
        shares = [float(part.strip().removesuffix("%")) / 100 for part in text.split(",")]
    except ValueError:
        shares = [0.0]
    if not all(0 < share <= 1 for share in shares):
        raise DataError(f"--sizes {text!r}: write shares above 0 % and up to 100 %, as 10%,40%")
    return shares


def _settings(
    options: Sequence[str], epochs: int, batch_size: int, learning_rate: float, crop: float | None
) -> FinetuneSettings:
    from dataclasses import replace

    from ossicle.finetune.settings import FinetuneSettings
    from ossicle.keywords import parse_keywords
    from ossicle.study.transfer_plan import TRAINING

    changes = parse_keywords(options, FinetuneSettings, "training")
    named: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    named["crop_s"] = crop
    twice = next((key for key in named if key in changes), None)
    if twice is not None:
        raise DataError(f"--option {twice} has an option of its own: leave it out")
    return replace(TRAINING, **changes, **named)
