"""KEY=VALUE texts, typed by a signature; mistakes are one line that names the keywords."""

from __future__ import annotations

import pytest

from ossicle.backbones import BACKBONES
from ossicle.errors import OssicleError
from ossicle.keywords import parse_keywords
from ossicle.pretrain.run import OBJECTIVES


def function(
    positional: object,
    size: int = 3,
    width: float = 1.0,
    deep: bool = False,
    name: str = "x",
    depth: int | None = None,
    share: float | None = None,
    kind: str | None = None,
    either: int | float = 1,
    several: tuple[int, str] = (1, "a"),
    **more: int,
) -> int:
    return 0


class Network:
    def __init__(self, width: float = 1.0, multiscale: bool = False) -> None:
        pass


CASES = {
    "size=7": 7,
    "size=-2": -2,
    "size=8/2": 4,
    "size=1e3": 1000,
    "size= 5 ": 5,
    "width=0.5": 0.5,
    "width=1/8": 0.125,
    "width=2": 2.0,
    "width=-1.5e-3": -0.0015,
    "deep=true": True,
    "deep=Yes": True,
    "deep=1": True,
    "deep=FALSE": False,
    "deep=no": False,
    "deep=0": False,
    "name=byol": "byol",
    "name=1/3": "1/3",
    "name=a=b": "a=b",
    "name=none": "none",
    "name=": "",
    "depth=none": None,
    "depth=None": None,
    "depth=4": 4,
    "share=1/3": 1 / 3,
    "share=none": None,
    "kind=none": None,
    "kind=mean": "mean",
    "either=2": 2,
    "either=2.5": 2.5,
}


@pytest.mark.parametrize("text", CASES)
def test_values_have_the_type_of_the_signature(text):
    value = parse_keywords([text], function, "it")
    key = text.split("=")[0]
    assert value == {key: CASES[text]}
    assert type(value[key]) is type(CASES[text])


def test_several_and_of_a_class():
    assert parse_keywords(["width=1/4", "multiscale=true"], Network, "it") == {
        "width": 0.25,
        "multiscale": True,
    }
    assert parse_keywords([], Network, "it") == {}
    assert parse_keywords(["width=1", "width=2"], Network, "it") == {"width": 2.0}


def test_dashes_are_as_good_as_underscores():
    def own(drop_rate: float = 0.1) -> None:
        pass

    assert parse_keywords(["drop-rate=0.3"], own, "it") == {"drop_rate": 0.3}
    assert parse_keywords([" drop_rate =0.3"], own, "it") == {"drop_rate": 0.3}


def told(text: str, target=function, what: str = "the network") -> str:
    with pytest.raises(OssicleError) as caught:
        parse_keywords([text], target, what)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "text", ["nothing=1", "positional=1", "several=1", "more=1", "self=1", "=1"]
)
def test_what_is_unknown_is_told_with_what_is_known(text):
    key = text.split("=")[0]
    assert told(text) == (
        f"the network has no keyword {key!r}; it has: "
        "size, width, deep, name, depth, share, kind, either"
    )


def test_where_there_is_none_that_is_said():
    assert told("a=1", lambda: 0, "it") == "it has no keyword 'a'; it has: none"
    assert "it has: width, multiscale" in told("self=1", Network)


@pytest.mark.parametrize("text", ["size", "width 3", ""])
def test_what_is_no_pair_is_told(text):
    assert told(text) == f"{text!r}: write it as KEY=VALUE"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("size=1.5", "int"),
        ("size=one", "int"),
        ("size=", "int"),
        ("size=1/0", "int"),
        ("size=inf", "int"),
        ("size=nan", "int"),
        ("size=1/3", "int"),
        ("width=wide", "float"),
        ("width=1/2/3", "float"),
        ("width=inf", "float"),
        ("width=nan", "float"),
        ("width=1e999", "float"),
        ("deep=maybe", "bool"),
        ("deep=2", "bool"),
        ("depth=deep", "int or none"),
        ("share=half", "float or none"),
    ],
)
def test_a_value_of_another_type_is_told(text, kinds):
    key, _, value = text.partition("=")
    assert told(text) == f"the network: {key} is {value!r}: it must be {kinds}"


@pytest.mark.parametrize("name", [*BACKBONES, *OBJECTIVES])
def test_every_network_and_objective_can_be_asked(name):
    """Their signatures are readable, and an unknown keyword is told."""
    target = BACKBONES.get(name) or OBJECTIVES[name]
    assert "it has: " in told("no_such_keyword=1", target, name)


def test_those_of_the_documentation():
    parse = parse_keywords
    assert parse(["width=1/8"], BACKBONES["slowfast_nfnet_f0"], "it") == {"width": 0.125}
    assert parse(["multiscale=true"], BACKBONES["resnet50"], "it") == {"multiscale": True}
    assert parse(["temperature=0.2"], OBJECTIVES["simclr"], "it") == {"temperature": 0.2}
    assert parse(["normalise-batch=yes"], OBJECTIVES["byol"], "it") == {"normalise_batch": True}
    assert parse(["bidirectional=none"], OBJECTIVES["cpc"], "it") == {"bidirectional": None}


def test_tuples_have_their_values_with_commas() -> None:
    def target(sizes: tuple[int, ...] = (), names: tuple[str, ...] = ("a",)) -> None: ...

    found = parse_keywords(["sizes=16, 64", "names=speech,noise"], target, "target")
    assert found == {"sizes": (16, 64), "names": ("speech", "noise")}
    assert parse_keywords(["sizes=3"], target, "target") == {"sizes": (3,)}
    assert parse_keywords(["names="], target, "target") == {"names": ()}
    with pytest.raises(OssicleError, match="target: sizes is 'x': it must be int"):
        parse_keywords(["sizes=1,x"], target, "target")
