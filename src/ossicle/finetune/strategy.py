"""A way to a model for a task, as data: it can be written as a text, put in a table, run again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ossicle.backbones import BACKBONES, DEFAULT_BACKBONE
from ossicle.errors import OssicleError
from ossicle.finetune.settings import FinetuneSettings
from ossicle.frontend import FRONTENDS
from ossicle.keywords import parse_keywords

KINDS = ("probe", "finetune", "scratch")
# What is learnt from nothing needs larger steps, and more of them.
SCRATCH = FinetuneSettings(epochs=40, learning_rate=2e-3, layer_decay=1.0, patience=10)
# What `ossicle finetune` can be told, and what of it says nothing about random weights.
OPTIONS = frozenset(f.name for f in fields(FinetuneSettings)) - {"warm_up", "head_rate"}
OF_TRAINED = {"unfreeze", "unfreeze_every", "frozen_norms", "layer_decay", "head_start"}


@dataclass(frozen=True)
class Strategy:
    """One way to a model for a task.

    Attributes:
        kind: "probe" (the network stays frozen), "finetune" (it starts from its weights) or
            "scratch" (from random ones).
        backbone: a name of ``list_models()``, "hf:NAME", or a bundle's folder.
        random: for "probe": random weights.
        config: keywords of the network's constructor.
        frontend: changes of the front end's keywords; for networks with random weights.
        layers: of the read-out; None: all, from scratch the last.
        pooling: with commas; None: the network's own, from scratch the mean.
        probe: a name in ``ossicle.transfer.probe.PROBES``.
        choose_layers: inside the training part.
        settings: of training; None: those that suit the kind.
    """

    kind: str = "probe"
    backbone: str = DEFAULT_BACKBONE
    random: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    frontend: Mapping[str, Any] = field(default_factory=dict)
    layers: str | None = None
    pooling: str | None = None
    probe: str = "ridge"
    choose_layers: bool = False
    settings: FinetuneSettings | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OssicleError(f"strategy {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.frontend and not (self.random or self.kind == "scratch"):
            raise OssicleError("a trained network keeps its front end: change it from scratch only")
        for name in ("random", "choose_layers", "probe"):
            if self.kind != "probe" and getattr(self, name) != type(self).__dict__[name]:
                raise OssicleError(f"{name} is of probes: leave it out of {self.kind!r}")

    @property
    def training(self) -> FinetuneSettings:
        """The settings of training that hold."""
        if self.settings is not None:
            return self.settings
        return SCRATCH if self.kind == "scratch" else FinetuneSettings()

    def text(self) -> str:
        """The strategy as ``parse`` reads it: what differs from the defaults."""
        words = [self.kind, f"backbone={self.backbone}"]
        plain = ("layers", "pooling", "probe", "choose_layers", "random")
        default = Strategy(self.kind)
        for name in plain:
            if getattr(self, name) != getattr(default, name):
                words.append(f"{name}={_shown(getattr(self, name))}")
        words += [f"set.{name}={_shown(value)}" for name, value in self.config.items()]
        words += [f"frontend.{name}={_shown(value)}" for name, value in self.frontend.items()]
        usual = asdict(default.training)
        if self.kind != "probe":
            words += [
                f"{name}={_shown(value)}"
                for name, value in asdict(self.training).items()
                if value != usual[name]
            ]
        return shlex.join(words)

    def command(
        self,
        clips: str = "CLIPS",
        out: str = "NAME.ossicle",
        options: Sequence[str] = (),
    ) -> str:
        """The line that measures the strategy on clips and makes its model.

        Args:
            clips: folder or manifest.
            out: the bundle.
            options: of reading the clips, such as "--groups", "speaker".

        Raises:
            OssicleError: no verb does it: a frozen network behind another front end.
        """
        if self.kind == "probe" and self.frontend:
            raise OssicleError("no verb changes the front end of a frozen network")
        verb = "train" if self.kind == "probe" else "finetune"
        words = ["ossicle", verb, clips, "-o", out, *options]
        words += ["--backbone", self.backbone]
        words += ["--scratch"] if self.kind == "scratch" else []
        words += ["--random"] if self.random else []
        for option, values in (("--set", self.config), ("--frontend", self.frontend)):
            for name, value in values.items():
                words += [option, f"{name}={_shown(value)}"]
        for name in ("layers", "pooling"):
            if getattr(self, name) is not None:
                words += [f"--{name}", getattr(self, name)]
        if self.kind == "probe":
            words += ["--probe", self.probe] if self.probe != "ridge" else []
            words += ["--choose-layers"] if self.choose_layers else []
            return shlex.join(words)
        usual = asdict(Strategy(self.kind).training)
        known = OPTIONS - OF_TRAINED if self.kind == "scratch" else OPTIONS
        for name, value in asdict(self.training).items():
            option = "--" + name.removesuffix("_s").replace("_", "-")
            if value == usual[name] or name not in known:
                continue
            if isinstance(value, bool):
                words.append(option if value else option.replace("--", "--no-", 1))
            else:
                words += [option, str(value)]
        return shlex.join(words)

    @classmethod
    def parse(cls, text: str) -> Strategy:
        """``finetune backbone=yamnet unfreeze=4 epochs=20`` as a strategy.

        Args:
            text: the kind, then KEY=VALUE: attributes of a strategy and of its settings,
                ``set.KEY`` of the network, ``frontend.KEY`` of the front end.

        Raises:
            OssicleError: a word is unknown or not of its type.
        """
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise OssicleError(f"{text!r}: {error}") from error
        if not words or words[0] not in KINDS:
            raise OssicleError(f"{text!r}: begin with one of {', '.join(KINDS)}")
        kind = words[0]
        parts: dict[str, list[str]] = {"set": [], "frontend": [], "own": [], "training": []}
        own = {f.name for f in fields(cls)} - {"kind", "config", "frontend", "settings"}
        for word in words[1:]:
            key = word.partition("=")[0]
            head, dot, _ = key.partition(".")
            if dot and head in ("set", "frontend"):
                parts[head].append(word[len(head) + 1 :])
            else:
                parts["own" if key.replace("-", "_") in own else "training"].append(word)
        values = parse_keywords(parts["own"], cls, "a strategy")
        backbone = values.get("backbone", cls.backbone)
        config = network_keywords(backbone, parts["set"])
        changes = frontend_keywords(backbone, parts["frontend"])
        default = SCRATCH if kind == "scratch" else FinetuneSettings()
        given = parse_keywords(parts["training"], FinetuneSettings, "a strategy")
        settings = replace(default, **given).check() if given else None
        if settings is not None and kind == "probe":
            raise OssicleError(
                f"{text!r}: a probe has no {next(iter(given))}, which is of training"
            )
        return cls(kind, config=config, frontend=changes, settings=settings, **values)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def network_keywords(backbone: str, texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as keywords of a network's constructor.

    Raises:
        OssicleError: a keyword is unknown, or the network brings its own configuration.
    """
    if backbone in BACKBONES:
        return parse_keywords(texts, BACKBONES[backbone], backbone)
    if texts:
        raise OssicleError(f"{backbone} brings its own configuration: it takes no keywords")
    return {}


def frontend_keywords(backbone: str, texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as changes of the front end of a network.

    Raises:
        OssicleError: a keyword is unknown, or the network brings its own front end.
    """
    if not texts:
        return {}
    if backbone not in BACKBONES:
        raise OssicleError(f"{backbone} brings its own front end: it cannot be changed")
    front = BACKBONES[backbone].frontend["name"]
    return parse_keywords(texts, FRONTENDS[front], front)
