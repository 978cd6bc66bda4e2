"""Does training on other sounds help? Sources by targets, and how much of a target's data it saves.

After McMahan & Rao 2018, "Listening to the World Improves Speech Command Recognition" (AAAI, arXiv
1710.08377), for any sets of clips and in every direction: a network is trained on all clips of a
source, its classifier replaced, and all of its weights go on training on a part of a target's
training clips, beside the same network from random weights on the same part, with the same
settings, epochs and seed. Plain, and behind the paper's multiscale input.

Every arm is tested on the same clips of the target: those of its own folds or split. Parts of the
training clips hold the smaller ones, the same share of every class, groups in whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ossicle import bundle
from ossicle.datasets.clips import Clips
from ossicle.errors import DataError
from ossicle.finetune.models import build
from ossicle.finetune.run import finetune
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.strategy import Strategy
from ossicle.finetune.trials import Trials
from ossicle.metrics import PRIMARY
from ossicle.pretrain.waveforms import decode_cached
from ossicle.record import json_safe, record
from ossicle.study.cells import Cell, Cells
from ossicle.study.nested import Size, nested_parts
from ossicle.study.outputs import write_study
from ossicle.study.transfer_curves import ARMS, Curves, Judge, Target, Trial
from ossicle.study.transfer_page import findings, method, transfer_figures
from ossicle.study.transfer_plan import TransferPlan, refuse_same_files, shared_sounds
from ossicle.transfer.protocol import Protocol, choose_protocol

NAME = "transfer_matrix"


def transfer_study(
    sets: Mapping[str, Clips],
    out: str | Path,
    *,
    sources: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    plan: TransferPlan | None = None,
    workers: int = 1,
    name: str = NAME,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train on each source, go on on each target, and compare with a new network.

    Stopped, it goes on where it was; more seeds or shares later only add what is missing.

    Args:
        sets: name -> labelled clips.
        out: folder of the tables, figures, trained networks and finished cells.
        sources, targets: names among them; None: all. A set is never its own source.
        plan: what is tried; None: the defaults.
        workers: threads.
        name: of the files.
        command: that makes it again, for the page.
        progress: called with (cells done, cells in all).

    Returns:
        "gains", "interactions", "matches", "scores" (rows of the tables), "text" (what was
        found), "notes", "pairs", "targets" (protocol, clips), "sources" (clips, epochs, seconds),
        "arms" (what each is), "seconds" of all training, "files".

    Raises:
        DataError: the sets cannot be used, are the same recordings, or ``out`` holds another study.
        OssicleError: the plan cannot be meant.
    """
    run = _Run(sets, Path(out), sources, targets, (plan or TransferPlan()).checked(), workers)
    rows = run.cells.run(run.todo(), run.compute, progress)
    curves = run.curves(rows)
    tables = {
        "Gain of transfer over scratch": curves.gains(),
        "Interaction": curves.interactions(),
        "Matching scratch on everything": curves.matches(),
        "Scores": curves.table(),
    }
    if not len(tables["Interaction"]):
        del tables["Interaction"]
    text, told = findings(curves), run.describe_targets()
    result = {
        "gains": _rows(tables["Gain of transfer over scratch"]),
        "interactions": _rows(tables.get("Interaction", pd.DataFrame())),
        "matches": _rows(tables["Matching scratch on everything"]),
        "scores": _rows(tables["Scores"]),
        "text": text,
        "notes": run.notes,
        "pairs": [list(pair) for pair in run.pairs],
        "targets": told,
        "training": run.training(),
        "sources": [row for row in rows if row["arm"] == "source"],
        "arms": ARMS,
        "seconds": float(sum(row["seconds"] for row in rows)),
    }
    about = record(run.arguments(), seed=run.plan.seed, data=run.files())
    paths = write_study(
        Path(out),
        name,
        title="Does training on other sounds help?",
        text=[*text, *method(curves, told, run.training()), *run.told()],
        tables=tables,
        figures=transfer_figures(curves),
        result=result,
        record=about,
        command=command,
    )
    return {**result, "files": [str(path) for path in paths]}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [json_safe(row) for row in table.to_dict("records")]


class _Run:
    """One study: its sets as they can be read, its cells, its trained sources."""

    def __init__(
        self,
        sets: Mapping[str, Clips],
        out: Path,
        sources: Sequence[str] | None,
        targets: Sequence[str] | None,
        plan: TransferPlan,
        workers: int,
    ) -> None:
        self.plan, self.out, self.workers = plan, out, workers
        unknown = [
            n for n in [*(sources or ()), *(targets or ()), *plan.test_folds] if n not in sets
        ]
        if unknown:
            raise DataError(f"there is no set {unknown[0]!r}: name one of {', '.join(sets)}")
        self.sources = list(dict.fromkeys(sources if sources is not None else sets))
        self.targets = list(dict.fromkeys(targets if targets is not None else sets))
        self.pairs = [(s, t) for s in self.sources for t in self.targets if s != t]
        if not self.pairs:
            raise DataError("transfer needs a source and another set as its target: name two sets")
        used = [n for n in sets if n in self.sources or n in self.targets]
        self.notes: list[str] = []
        self.networks = plan.networks()
        if plan.multiscale and "multiscale" not in self.networks:
            self.notes.append(f"{plan.backbone} has no multiscale input: plain networks alone")
        refuse_same_files({name: sets[name] for name in used})
        rate = build(Strategy("scratch", plan.backbone, config=plan.config), plan.seed).sample_rate
        self.sets: dict[str, Clips] = {}
        self.crops: dict[str, float] = {}
        for name in used:
            waveforms = decode_cached(sets[name], rate, workers)
            self.sets[name] = sets[name].subset(waveforms.rows)
            self.crops[name] = float(np.median(waveforms.lengths)) / rate
            for _, path, reason in waveforms.skipped:
                self.notes.append(f"{name}: left out {path}: {reason}")
        self.protocols = {name: self._protocol(name) for name in self.targets}
        self.trials = {n: Trials(self.sets[n], workers=workers) for n in self.targets}
        self.contents = {name: clips.content() for name, clips in self.sets.items()}
        self.cells = Cells(out, self._same())

    def _protocol(self, name: str) -> Protocol:
        protocol = choose_protocol(
            self.sets[name], n_folds=self.plan.n_folds, random_state=self.plan.seed
        )
        self.notes += [f"{name}: {note}" for note in protocol.notes]
        wanted = self.plan.test_folds.get(name, len(protocol.folds))
        if wanted < 1:
            raise DataError(f"{name}: {wanted} folds cannot be tested, only 1 or more")
        if wanted < len(protocol.folds):
            self.notes.append(f"{name}: only {wanted} of {len(protocol.folds)} folds are tested")
        protocol.folds = protocol.folds[:wanted]
        return protocol

    def _same(self) -> dict[str, Any]:
        """What makes it the same study; seeds and shares can be added to."""
        plan = asdict(self.plan)
        for free in ("seeds", "shares", "probes", "multiscale"):
            plan.pop(free)
        parts = {
            name: [[train.tolist(), test.tolist()] for train, test in protocol.folds]
            for name, protocol in self.protocols.items()
        }
        folds = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return {"study": NAME, **plan, "sets": self.contents, "folds": folds}

    def todo(self) -> list[Cell]:
        """All cells; those that use one trained source lie side by side."""
        cells: list[Cell] = [{"arm": "audit"}]
        seeds = [self.plan.seed + i for i in range(self.plan.seeds)]
        wanted = {s for s, _ in self.pairs}
        for seed in seeds:
            for network in self.networks:
                by: dict[str, Any] = {"network": network, "seed": seed}
                cells += [{"arm": "source", "source": s, **by} for s in self.sources if s in wanted]
                for target in self.targets:
                    arms: list[tuple[str, str | None]] = [("scratch", None)]
                    arms += [("untrained", None)] if self.plan.probes else []
                    for source in (s for s, other in self.pairs if other == target):
                        arms += [("transfer", source)]
                        arms += [("probe", source)] if self.plan.probes else []
                    cells += [
                        {"arm": a, "source": s, "target": target, **by, "fold": k, "share": share}
                        for a, s in arms
                        for k in range(len(self.protocols[target].folds))
                        for share in self.plan.shares
                    ]
        return cells

    def compute(self, cell: Cell) -> dict[str, Any]:
        """One cell's result, with predictions of the fold's test clips."""
        if cell["arm"] == "audit":
            return {"shared": shared_sounds(self.sets), "seconds": 0.0}
        if cell["arm"] == "source":
            return self._train_source(cell["source"], cell["network"], cell["seed"])
        target, clips = cell["target"], self.sets[cell["target"]]
        train, test = self.protocols[target].folds[cell["fold"]]
        part = nested_parts(
            clips.y(),
            self.protocols[target].groups,
            train,
            [Size(cell["share"], None)],
            task=clips.task,
            seed=[cell["seed"], cell["fold"]],
        )[0]
        strategy = self.strategy(cell)
        outcome = self.trials[target].run(strategy, part, test, seed=cell["seed"])
        decisions = outcome.decisions
        kept: Any = np.round(decisions, 5)
        if clips.task == "classes":
            kept = decisions.argmax(axis=1)
        elif clips.task == "regression":
            kept = decisions[:, 0]
        return {"clips": len(part), "seconds": outcome.seconds, "decisions": kept.tolist()}

    def strategy(self, cell: Cell) -> Strategy:
        """How a cell's network comes about; scratch and transfer differ in its weights alone."""
        settings, config = self._cropped(cell["target"]), self.networks[cell["network"]]
        name: str = self.plan.backbone
        if cell["arm"] in ("transfer", "probe"):
            name = str(self._source_network(cell["source"], cell["network"], cell["seed"]))
        if cell["arm"] == "untrained":
            return Strategy("probe", name, random=True, config=config)
        if cell["arm"] == "probe":
            return Strategy("probe", name)
        read: dict[str, Any] = {"layers": "last", "pooling": "mean"}
        if cell["arm"] == "scratch":
            return Strategy("scratch", name, config=config, **read, settings=settings)
        return Strategy("finetune", name, **read, settings=settings)

    def _cropped(self, name: str, source: bool = False) -> FinetuneSettings:
        """The settings with a crop that is no longer than the set's clips, which are not filled."""
        settings = (self.plan.source_settings if source else None) or self.plan.settings
        if settings.crop_s is None:
            return settings
        return replace(settings, crop_s=min(settings.crop_s, self.crops[name]))

    def _source_folder(self, source: str, network: str, seed: int) -> Path:
        plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in source)
        return self.out / "sources" / f"{self.sources.index(source)}-{plain}-{network}-{seed}"

    def _digest(self, source: str, network: str, seed: int) -> str:
        """What a trained source was made from."""
        settings = asdict(replace(self._cropped(source, source=True), seed=seed))
        about = [self.contents[source], self.plan.backbone, self.networks[network], settings]
        return hashlib.sha256(json.dumps(json_safe(about), sort_keys=True).encode()).hexdigest()

    def _source_network(self, source: str, network: str, seed: int) -> Path:
        """The folder of the trained source, which is trained where it is missing."""
        folder = self._source_folder(source, network, seed)
        if not bundle.is_bundle(folder) or bundle.load(folder).info.get(
            "made_from"
        ) != self._digest(source, network, seed):
            self._train_source(source, network, seed)
        return folder

    def _train_source(self, source: str, network: str, seed: int) -> dict[str, Any]:
        folder, clips = self._source_folder(source, network, seed), self.sets[source]
        new = Strategy("scratch", self.plan.backbone, config=self.networks[network])
        tuned = finetune(
            build(new, seed),
            clips,
            np.arange(len(clips)),
            replace(self._cropped(source, source=True), seed=seed),
            scratch=True,
            workers=self.workers,
        )
        tuned.model.info.update(
            pretrained=True,
            weights=f"trained on {source}, {len(clips)} clips, seed {seed}",
            made_from=self._digest(source, network, seed),
        )
        bundle.save(tuned.model, folder)
        last = tuned.history[0][-1] if tuned.history[0] else {}
        numbers = {key: last.get(key) for key in ("loss", "accuracy")}
        return {"clips": len(clips), "seconds": tuned.seconds, "epochs": tuned.epochs[0], **numbers}

    def curves(self, rows: Sequence[Mapping[str, Any]]) -> Curves:
        """Scores of all arms from the finished cells."""
        for found in next(row for row in rows if row["arm"] == "audit")["shared"]:
            self.notes.append(found)
        by: dict[Trial, dict[tuple[int, int], Mapping[str, Any]]] = {}
        for row in rows:
            if row["arm"] in ARMS:
                trial = Trial(*(row[key] for key in Trial._fields))
                by.setdefault(trial, {})[row["seed"], row["fold"]] = row
        judges = {name: Judge(self._tested(name), seed=self.plan.seed) for name in self.targets}
        scores, sizes = {}, {}
        for trial, found in by.items():
            seeds = sorted({seed for seed, _ in found})
            folds = range(len(self.protocols[trial.target].folds))
            stacked = [
                np.concatenate([np.asarray(found[seed, k]["decisions"]) for k in folds])
                for seed in seeds
            ]
            scores[trial] = judges[trial.target].score(np.stack(stacked))
            mean = float(np.mean([row["clips"] for row in found.values()]))
            sizes[trial.target, trial.share] = mean
        return Curves(
            scores,
            sizes,
            {name: PRIMARY[self.sets[name].task] for name in self.targets},
            tuple(self.plan.shares),
            tuple(self.networks),
            tuple(self.pairs),
        )

    def _tested(self, name: str) -> Target:
        clips, protocol = self.sets[name], self.protocols[name]
        rows = np.concatenate([test for _, test in protocol.folds])
        task = clips.task
        return Target(task, PRIMARY[task], clips.y()[rows], protocol.groups[rows])

    def describe_targets(self) -> dict[str, Any]:
        """Name -> how it is split, clips, groups, and what is tested."""
        told = {}
        for name in self.targets:
            tested, protocol = self._tested(name), self.protocols[name]
            told[name] = {
                "clips": len(self.sets[name]),
                "protocol": protocol.text,
                "folds_tested": len(protocol.folds),
                "clips_tested": len(tested.y),
                "groups_tested": len(np.unique(tested.groups)),
                "group_source": protocol.group_source,
                "metric": tested.metric,
            }
        return told

    def training(self) -> str:
        """How networks were trained, in words."""
        plan, s = self.plan, self.plan.settings
        first = plan.source_settings or s
        keywords = "".join(f", {key} {value:g}" for key, value in plan.config.items())
        crops = s.crop_s is not None or first.crop_s is not None
        lengths = (
            ", ".join(f"{n} {self._cropped(n).crop_s:g} s" for n in self.sets) if crops else ""
        )
        heard = f"crops of {lengths}" if lengths else "crops as long as the median clip"
        return (
            f"{plan.backbone}{keywords}: {first.epochs} epochs on all clips of a source, "
            f"{s.epochs} on the part of the target, from scratch and after the source alike; "
            f"batches of {s.batch_size}, AdamW at {s.learning_rate:g} with warm-up and cosine, "
            f"weight decay {s.weight_decay:g}, {heard}, no early stopping."
        )

    def told(self) -> list[str]:
        """The notes, a line each."""
        return [f"Note: {note.removesuffix('.')}." for note in self.notes]

    def arguments(self) -> dict[str, Any]:
        """For the record."""
        named = {"sources": self.sources, "targets": self.targets, "sets": self.contents}
        return {**asdict(self.plan), **named, "workers": self.workers}

    def files(self) -> list[str]:
        """Every recording."""
        return sorted({path for clips in self.sets.values() for path in clips.table["path"]})
