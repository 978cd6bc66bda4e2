"""The advice on a task: measured, placed, expected, recommended, and on demand verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ossicle.advise import calibration
from ossicle.advise.alternatives import ALTERNATIVES, strategies
from ossicle.advise.cases import further, place
from ossicle.advise.expect import beyond, expect, recommended
from ossicle.advise.measure import SAMPLE, measure
from ossicle.advise.verify import LIMIT, judge, verification_sample, verify
from ossicle.backbones import DEFAULT_BACKBONE
from ossicle.datasets.clips import Clips
from ossicle.errors import OssicleError
from ossicle.finetune.strategy import Strategy
from ossicle.record import record
from ossicle.transfer.protocol import choose_protocol


def advise(
    clips: Clips,
    backbone: str = DEFAULT_BACKBONE,
    *,
    source: Clips | None = None,
    only: Sequence[str] | None = None,
    verified: bool = False,
    n_folds: int = 5,
    sample: int = SAMPLE,
    verify_on: int = LIMIT,
    seed: int = 0,
    workers: int = 1,
    arguments: Mapping[str, Any] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """What to do with a task, what it will cost and what to expect of it.

    Args:
        clips: labelled.
        backbone: the network whose use is considered.
        source: recordings like those that it learnt from.
        only: names of alternatives (``ALTERNATIVES``); None: all that the network allows.
        verified: run the alternatives too.
        n_folds: where the data brings none.
        sample: clips that are measured.
        verify_on: clips that are verified on.
        seed: of everything drawn.
        workers: threads.
        arguments: what the caller was asked, for the record.
        say: called with what is being done.

    Returns:
        A dict ready for JSON: title, created, protocol, n_training (clips of a training part),
        facts (``measure``), case (``cases.place``), expected (``expect.expect``), recommended (a
        name), agrees (whether the case names it), further (texts of strategies without a
        prediction), warnings, verified and judged (``verify``) or None, and record.

    Raises:
        DataError: the clips cannot be evaluated.
        OssicleError: a name is unknown.
    """
    if only is not None:
        unknown = [name for name in only if name not in ALTERNATIVES]
        if unknown or not only:
            known = ", ".join(ALTERNATIVES)
            raise OssicleError(f"no alternative {', '.join(unknown)!r}: choose among {known}")
    measured = measure(
        clips,
        backbone,
        source=source,
        limit=sample,
        seed=seed,
        workers=workers,
        say=say,
    )
    facts = measured.facts
    protocol = choose_protocol(clips, n_folds=n_folds, random_state=seed)
    n_training = float(np.mean([len(train) for train, _ in protocol.folds]))
    table = calibration.load()
    asked = ALTERNATIVES if only is None else only
    only = [name for name in asked if name in table["model"]["alternatives"]]
    ways = _ways(facts, backbone, n_training, only)
    if say is not None:
        say("timing a training step")
    entries = expect(facts, ways, n_training, workers=workers, table=table)
    case, chosen = place(facts), recommended(entries)
    warnings = [*facts["not_measured"], *beyond(facts, n_training, table)]
    result: dict[str, Any] = {
        "title": clips.root.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": {"text": protocol.text, "notes": [*clips.notes, *protocol.notes]},
        "n_training": n_training,
        "facts": facts,
        "case": case,
        "expected": entries,
        "level": table["model"]["level"],
        "recommended": chosen,
        "agrees": chosen in case["names"],
        "further": [one.text() for one in further(case["case"], ways)],
        "warnings": warnings,
        "verified": None,
        "judged": None,
    }
    if verified:
        result |= _verified(
            measured.clips if facts["sample"]["n_clips"] == len(clips) else clips,
            result,
            table,
            n_folds=n_folds,
            limit=verify_on,
            only=only,
            seed=seed,
            workers=workers,
            say=say,
        )
    result["record"] = record(
        dict(arguments or {}), seed=seed, data=sorted(set(clips.table["path"]))
    )
    return result


def _ways(
    facts: Mapping[str, Any], backbone: str, n_training: float, only: Sequence[str]
) -> dict[str, Strategy]:
    """The alternatives that the network allows, among those asked for."""
    network = facts["network"]
    ways = strategies(
        backbone,
        n_training=n_training,
        seconds=facts["sound"]["seconds"]["median"] or network["min_s"],
        pretrained=network["pretrained"],
        layers=network["layers"],
        min_s=network["min_s"],
    )
    kept = {name: way for name, way in ways.items() if name in only}
    if not kept:
        raise OssicleError(f"{backbone} allows none of these: choose among {', '.join(ways)}")
    return kept


def _verified(
    clips: Clips,
    result: Mapping[str, Any],
    table: Mapping[str, Any],
    *,
    n_folds: int,
    limit: int,
    only: Sequence[str],
    seed: int,
    workers: int,
    say: Callable[[str], None] | None,
) -> dict[str, Any]:
    """The alternatives run, on a sample where there are many clips, and judged.

    On a sample, what is set against the outcome is what is expected of the sample.
    """
    facts = result["facts"]
    some, words = verification_sample(clips, limit, seed)
    protocol = choose_protocol(some, n_folds=n_folds, random_state=seed)
    n_training = float(np.mean([len(train) for train, _ in protocol.folds]))
    ways = _ways(facts, facts["network"]["name"], n_training, only)
    found = verify(some, ways, protocol=protocol, seed=seed, workers=workers, say=say)
    expected = result["expected"]
    if len(some) != len(clips):
        expected = expect(facts, ways, n_training, workers=workers, table=table)
    chosen = recommended(expected)
    return {
        "verified": {
            **found,
            "words": words,
            "n_training": n_training,
            "expected": expected,
            "recommended": chosen,
            "texts": {name: way.text() for name, way in ways.items()},
        },
        "judged": judge(expected, found, chosen),
    }
