"""Bundles: the same numbers after save and load, and nothing hostile gets through."""

from __future__ import annotations

import copy
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ossicle import bundle
from ossicle.backbones import BACKBONES
from ossicle.errors import BundleError
from ossicle.heads import Head
from ossicle.model import Model, create_model

ODD_LABELS = [
    "10",
    "2",
    "café",
    "naïve Straße",
    " a b ",
    "time: 10:30",
    "x,y;z",
    "🐦",
    "日本",
    "a/b\\c",
]
ODD_LABELS += ['"quoted"', "<b>bold</b>", "../../etc/passwd", "line\nbreak", "null", "-1e3", ""]


def small_model(classes=("a", "b", "c"), task="classes", hidden=(4,), seed=0) -> Model:
    """Mel statistics with a random head: a whole model of a few kilobytes."""
    base = create_model("mel")
    readout = ("mel/mean", "mel/std")
    torch.manual_seed(seed)
    return Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=readout,
        head=Head([128, *hidden, len(classes)]),
        classes=classes,
        task=task,
        info={"name": "mel", "title": "test", "nested": {"list": [1, 2.5, None, "ü"]}},
    ).eval()


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


@pytest.fixture
def saved(tmp_path) -> Path:
    return bundle.save(small_model(), tmp_path / "model")


def edit(folder: Path, change) -> Path:
    """Apply a change to the config, in place or by what it returns."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config = change(config) or config
    file.write_text(json.dumps(config), encoding="utf-8")
    return folder


# --- round trip ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_a_loaded_model_gives_the_same_numbers(tmp_path, task, hidden):
    model = small_model(task=task, hidden=hidden)
    loaded = bundle.load(bundle.save(model, tmp_path / "model"))
    for seconds in (0.02, 1.0, 31.0):
        samples = noise(seconds, 16_000)
        assert np.array_equal(loaded.clip_scores(samples), model.clip_scores(samples))
        expected = model.clip_features(samples)
        for name, values in loaded.clip_features(samples).items():
            assert np.array_equal(values, expected[name])
    assert (loaded.task, loaded.clip, loaded.readout) == (task, model.clip, model.readout)
    assert loaded.info == model.info
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_labels_survive_in_their_order(tmp_path):
    model = small_model(classes=ODD_LABELS)
    loaded = bundle.load(bundle.save(model, tmp_path / "model"))
    assert loaded.classes == tuple(ODD_LABELS)
    again = bundle.load(bundle.save(loaded, tmp_path / "again"))
    assert again.classes == tuple(ODD_LABELS)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "<b>" not in card
    assert f"{len(ODD_LABELS)} classes" in card


def test_saving_twice_gives_the_same_files(tmp_path):
    model = small_model()
    for name in ("a", "b"):
        first = bundle.save(model, tmp_path / name / "model")
        bundle.save(bundle.load(first), tmp_path / f"{name}2" / "model")
    for file in ("config.json", "model.safetensors", "README.md"):
        contents = {(tmp_path / n / "model" / file).read_bytes() for n in ("a", "b", "a2", "b2")}
        assert len(contents) == 1


def test_a_saved_model_is_three_plain_files(saved):
    assert sorted(p.name for p in saved.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert list(saved.parent.iterdir()) == [saved]


def test_the_card_is_the_callers_or_a_plain_one(tmp_path, saved):
    bundle.save(small_model(), tmp_path / "other", card="# mine")
    assert (tmp_path / "other" / "README.md").read_text() == "# mine"
    plain = (saved / "README.md").read_text(encoding="utf-8")
    for words in ("16000 Hz", "3 classes", "1. a", "ossicle predict"):
        assert words in plain


@pytest.mark.skipif(os.name == "nt", reason="modes are of POSIX systems")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_others_may_read_what_the_umask_lets_them(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = bundle.save(small_model(), tmp_path / "model")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o666 & ~mask}


def test_the_weights_are_those_of_safetensors_own_file(tmp_path, saved):
    save_file(dict(small_model().state_dict()), tmp_path / "witness")
    assert (saved / "model.safetensors").read_bytes() == (tmp_path / "witness").read_bytes()


def test_a_loaded_model_does_not_follow_its_file(saved):
    samples = noise(1, 16_000)
    loaded = bundle.load(saved)
    expected = loaded.clip_scores(samples)
    file = saved / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))  # in place: the same inode
    assert np.array_equal(loaded.clip_scores(samples), expected)


# --- saving ----------------------------------------------------------------------------------


def test_saving_over_a_bundle_replaces_it_and_keeps_what_lies_beside(saved):
    (saved / "notes.txt").write_text("mine")
    (saved / "figures").mkdir()
    (saved / "figures" / "a.txt").write_text("a")
    bundle.save(small_model(classes=("x", "y")), saved)
    assert bundle.load(saved).classes == ("x", "y")
    assert (saved / "notes.txt").read_text() == "mine"
    assert (saved / "figures" / "a.txt").read_text() == "a"
    assert list(saved.parent.iterdir()) == [saved]


def folder_with_files(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("ten years")


def someone_elses_model(path: Path) -> None:
    """As other libraries lay models out: the same names, another format."""
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "wav2vec2"}')
    save_file({"w": torch.zeros(2)}, path / "model.safetensors")


@pytest.mark.parametrize(
    "make",
    [folder_with_files, someone_elses_model, Path.mkdir, lambda p: p.write_text("file")],
    ids=["folder", "other model", "empty folder", "file"],
)
def test_saving_over_anything_else_is_refused(tmp_path, make):
    target = tmp_path / "target"
    make(target)
    before = sorted((str(p), p.is_file() and p.read_bytes()) for p in tmp_path.rglob("*"))
    with pytest.raises(BundleError, match="target.*not a bundle"):
        bundle.save(small_model(), target)
    assert sorted((str(p), p.is_file() and p.read_bytes()) for p in tmp_path.rglob("*")) == before


def test_saving_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        bundle.save(small_model(), tmp_path / "file" / "model")


def test_saving_through_a_link_replaces_what_it_points_to(tmp_path, saved):
    link = tmp_path / "latest"
    link.symlink_to(saved)
    bundle.save(small_model(classes=("x", "y")), link)
    assert link.is_symlink()
    assert bundle.load(saved).classes == ("x", "y")


def test_what_cannot_be_described_is_refused(tmp_path):
    class Own(BACKBONES["mel"]):
        pass

    model = small_model()
    model.backbone = Own()
    with pytest.raises(BundleError, match="Own cannot be saved"):
        bundle.save(model, tmp_path / "own")
    # As a folder name that is not UTF-8 arrives from the file system.
    with pytest.raises(BundleError, match="class name"):
        bundle.save(small_model(classes=("a", os.fsdecode(b"caf\xe9"))), tmp_path / "label")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_old_bundle(saved, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("as_safetensors", "write_json", "plain_card"):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, name, fail)
            with pytest.raises(BundleError, match="No space left"):
                bundle.save(small_model(classes=("x", "y")), saved)
        assert bundle.load(saved).classes == ("a", "b", "c")
        assert list(saved.parent.iterdir()) == [saved]
    # The new folder cannot take the old one's place: the old one is put back.
    rename = Path.rename

    def rename_but_not_new(self: Path, target: Path) -> Path:
        return fail() if self.suffix == ".part" else rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_but_not_new)
    with pytest.raises(BundleError, match="No space left"):
        bundle.save(small_model(classes=("x", "y")), saved)
    assert bundle.load(saved).classes == ("a", "b", "c")
    assert list(saved.parent.iterdir()) == [saved]


def test_killed_while_saving_leaves_nothing_half_written(tmp_path):
    """A process saves without end and is killed at odd moments: what is there is whole."""
    program = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        from test_bundle import bundle, small_model
        models = [small_model(classes=("a", "b", "c"), seed=1), small_model(("x", "y"), seed=2)]
        print("ready", flush=True)
        while True:
            for model in models:
                bundle.save(model, sys.argv[1] + "/model")
        """
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)]
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.05, 0.3))
            process.send_signal(signal.SIGKILL)
        if (tmp_path / "model").exists():
            found += 1
            assert bundle.load(tmp_path / "model").classes in (("a", "b", "c"), ("x", "y"))
        visible = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
        assert visible in ([], ["model"])
    assert found


# --- what load refuses -----------------------------------------------------------------------


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def rewrite(folder: Path, change) -> None:
    tensors = load_file(weights(folder))
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, weights(folder))


def header(folder: Path, text: str | bytes, length: int | None = None) -> None:
    raw = text.encode() if isinstance(text, str) else text
    weights(folder).write_bytes(struct.pack("<Q", length or len(raw)) + raw)


FIRST = "head.layers.0.weight"

BROKEN_WEIGHTS = {
    "empty": lambda f: weights(f).write_bytes(b""),
    "seven bytes": lambda f: weights(f).write_bytes(b"1234567"),
    "text": lambda f: weights(f).write_text("these are no weights, but long enough to read"),
    "truncated": lambda f: weights(f).write_bytes(weights(f).read_bytes()[:-100]),
    "trailing bytes": lambda f: weights(f).write_bytes(weights(f).read_bytes() + b"more"),
    "huge header": lambda f: header(f, "{}", 2**62),
    "header of 100 MB": lambda f: header(f, "{}", 100_000_000),
    "header not JSON": lambda f: header(f, "{" * 50),
    "header nested": lambda f: header(f, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "header a list": lambda f: header(f, "[]"),
    "header not UTF-8": lambda f: header(f, b'{"\xff\xfe": 1}'),
    "offsets past the end": lambda f: header(
        f, '{"head.layers.0.weight":{"dtype":"F32","shape":[4,128],"data_offsets":[0,2048]}}'
    ),
    "shape overflows": lambda f: header(
        f, json.dumps({FIRST: {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}})
    ),
    "unknown type": lambda f: header(
        f, json.dumps({FIRST: {"dtype": "F4", "shape": [0], "data_offsets": [0, 0]}})
    ),
    "missing key": lambda f: rewrite(f, lambda t: t.pop(FIRST)),
    "extra key": lambda f: rewrite(f, lambda t: t.update(extra=torch.zeros(1))),
    "path as key": lambda f: rewrite(f, lambda t: t.update({"../../outside": torch.zeros(1)})),
    "wrong shape": lambda f: rewrite(f, lambda t: t.update({FIRST: torch.zeros(128, 4)})),
    "scalar": lambda f: rewrite(f, lambda t: t.update({FIRST: torch.tensor(1.0)})),
    "wrong type": lambda f: rewrite(f, lambda t: t.update({FIRST: t[FIRST].double()})),
    "half precision": lambda f: rewrite(f, lambda t: t.update({FIRST: t[FIRST].half()})),
    "integers": lambda f: rewrite(f, lambda t: t.update({FIRST: t[FIRST].int()})),
    "NaN": lambda f: rewrite(f, lambda t: t[FIRST].view(-1)[5:6].fill_(float("nan"))),
    "infinity": lambda f: rewrite(f, lambda t: t[FIRST].view(-1)[5:6].fill_(float("-inf"))),
}


@pytest.mark.parametrize("name", BROKEN_WEIGHTS)
def test_broken_weights_are_refused(saved, name):
    BROKEN_WEIGHTS[name](saved)
    with pytest.raises(BundleError, match=r"model\.safetensors") as caught:
        bundle.load(saved)
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["OSSICLE_TEST_BOMB"]),))


def test_a_pickle_under_the_weights_name_is_not_run(saved, monkeypatch):
    crater = saved.parent / "crater"
    monkeypatch.setenv("OSSICLE_TEST_BOMB", str(crater))
    weights(saved).write_bytes(pickle.dumps({"weights": Bomb()}))
    with pytest.raises(BundleError, match="not safetensors"):
        bundle.load(saved)
    assert not crater.exists()
    torch.save({"weights": Bomb()}, weights(saved))
    with pytest.raises(BundleError, match="not safetensors"):
        bundle.load(saved)
    assert not crater.exists()
    with weights(saved).open("rb") as file:
        torch.load(file, weights_only=False)
    assert crater.exists(), "the bomb would have worked"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_links_and_special_files_are_refused(saved, tmp_path, name):
    real = tmp_path / "elsewhere"
    shutil.move(saved / name, real)
    (saved / name).symlink_to(real)
    with pytest.raises(BundleError, match="link"):
        bundle.load(saved)
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(BundleError, match=name):
        bundle.load(saved)  # would wait for ever for the pipe's other end
    (saved / name).unlink()
    with pytest.raises(BundleError, match="missing"):
        bundle.load(saved)


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file", "\0", tmp_path):
        with pytest.raises(BundleError):
            bundle.load(path)


BROKEN_CONFIGS = {
    "empty": "",
    "not JSON": "{'format': 'ossicle-bundle'}",
    "a list": "[1, 2]",
    "a number": "3",
    "null": "null",
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "huge integer": '{"format": ' + "9" * 10_000 + "}",
    "other format": '{"format": "other"}',
    "format a list": '{"format": ["ossicle-bundle"]}',
    "mark alone": '{"format": "ossicle-bundle", "format_version": 1}',
}


@pytest.mark.parametrize("name", BROKEN_CONFIGS)
def test_broken_config_text_is_refused(saved, name):
    (saved / "config.json").write_text(BROKEN_CONFIGS[name])
    with pytest.raises(BundleError) as caught:
        bundle.load(saved)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_config_bytes_are_refused(saved):
    for raw in (b"\xff\xfe\x00", b"\0" * 100, b'{"format": "ossicle-bundle", "x": NaN}'):
        (saved / "config.json").write_bytes(raw)
        with pytest.raises(BundleError):
            bundle.load(saved)


@pytest.mark.parametrize("version", [0, 2, "1", 1.5, 1.0, True, None, [1], {"a": 1}])
def test_another_format_version_is_named(saved, version):
    edit(saved, lambda c: c.update(format_version=version, ossicle="9.9.9"))
    with pytest.raises(BundleError, match="9.9.9.*install"):
        bundle.load(saved)


def test_messages_carry_nothing_that_steers_a_terminal(saved):
    evil = "\x1b[2J\n\r" + "x" * 5000
    for keys in (("ossicle",), ("frontend", evil), ("task",), ("backbone", "name"), (evil,)):
        folder = bundle.save(small_model(), saved)
        edit(folder, lambda c, keys=keys: set_at(c, keys, evil))
        if keys == ("ossicle",):
            edit(folder, lambda c: c.update(format_version=7))
        if keys == (evil,):
            rewrite(folder, lambda t: t.update({evil: torch.zeros(1)}))
        with pytest.raises(BundleError) as caught:
            bundle.load(folder)
        message = str(caught.value)
        assert message.isprintable()
        assert len(message) < 1000


HOSTILE_VALUES = {
    "head of a terabyte": (("head", "sizes"), [128, 1_000_000, 1_000_000, 3]),
    "head of booleans": (("head", "sizes"), [True, True]),
    "head without sizes": (("head", "sizes"), []),
    "head of many layers": (("head", "sizes"), [128] + [4] * 1000 + [3]),
    "head negative": (("head", "sizes"), [128, -4, 3]),
    "head of floats": (("head", "sizes"), [128.0, 4.0, 3.0]),
    "window endless": (("clip", "window_s"), 1e308),
    "window of nothing": (("clip", "window_s"), 0),
    "window text": (("clip", "window_s"), "30"),
    "window true": (("clip", "window_s"), True),
    "least longer than the window": (("clip", "min_s"), 1000),
    "least negative": (("clip", "min_s"), -1),
    "fill unknown": (("clip", "fill"), "poetry"),
    "clip unknown": (("clip", "hop_s"), 1),
    "bands by the million": (("frontend", "n_mels"), 1_000_000),
    "transform of gigabytes": (("frontend", "n_fft"), 2**40),
    "transform text": (("frontend", "n_fft"), "512"),
    "transform a float": (("frontend", "n_fft"), 512.0),
    "hop of nothing": (("frontend", "hop_length"), 0),
    "other bands": (("frontend", "n_mels"), 32),
    "other front end": (("frontend", "name"), "stft"),
    "front end unknown": (("frontend", "name"), "os.system"),
    "front end a list": (("frontend", "name"), []),
    "front end keyword": (("frontend", "cls"), "Model"),
    "self": (("frontend", "self"), 1),
    "rate of nothing": (("frontend", "sample_rate"), 0),
    "rate negative": (("frontend", "sample_rate"), -16_000),
    "rate elsewhere": (("sample_rate",), 8_000),
    "backbone unknown": (("backbone", "name"), "../../evil"),
    "backbone keyword": (("backbone", "config"), {"depth": 10**9}),
    "backbone config a list": (("backbone", "config"), []),
    "task unknown": (("task",), "poetry"),
    "task a list": (("task",), ["classes"]),
    "classes a string": (("classes",), "abc"),
    "classes of numbers": (("classes",), [1, 2, 3]),
    "classes twice": (("classes",), ["a", "a", "b"]),
    "classes too few": (("classes",), ["a", "b"]),
    "half a surrogate pair": (("classes",), ["a", "b", "\ud800"]),
    "readout unknown": (("readout",), ["mel/mean", "mel/median"]),
    "readout of a path": (("readout",), ["../../mel/mean", "mel/std"]),
    "readout twice": (("readout",), ["mel/mean", "mel/mean"]),
    "readout empty": (("readout",), []),
    "no head though classes": (("head",), None),
    "info a list": (("info",), []),
    "info infinite": (("info", "x"), float("inf")),
}


def set_at(config: dict, keys: tuple[str, ...], value: object) -> None:
    for key in keys[:-1]:
        config = config[key]
    config[keys[-1]] = value


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_hostile_values_are_refused(saved, name):
    edit(saved, lambda c: set_at(c, *HOSTILE_VALUES[name]))
    with pytest.raises(BundleError) as caught:
        bundle.load(saved)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# --- fuzz ------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.sampled_from([0, 1, -1, 2**31, 10**9, 1e300, "", "max", "none", "htk", "mean"])
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: object, at: tuple = ()) -> list[tuple]:
    """The way to every value inside a config."""
    found = [at] if at else []
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*at, key))
    return found


def what_it_says(config: dict) -> dict:
    """The part of a config that describes the model."""
    keys = ("sample_rate", "frontend", "backbone", "clip", "readout", "head", "task", "classes")
    return {key: config[key] for key in (*keys, "info")}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> tuple[Path, dict]:
    folder = bundle.save(small_model(), tmp_path_factory.mktemp("fuzz") / "model")
    return folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_changed_config_gives_the_model_it_says_or_one_error(fuzzed, data):
    folder, original = fuzzed
    config = copy.deepcopy(original)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, key = data.draw(st.sampled_from(places(config)))
        inside = config
        for step in path:
            inside = inside[step]
        match data.draw(st.sampled_from(["replace", "remove", "rename"])):
            case "replace":
                inside[key] = data.draw(JSON)
            case "remove":
                del inside[key]
            case _ if isinstance(inside, dict):
                inside[data.draw(st.text(max_size=8))] = inside.pop(key)
        if not config:
            break
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        model = bundle.load(folder)
    except BundleError as error:
        assert "\n" not in str(error)
    else:
        # Nothing was bent into shape: what is left out has its default, the rest is as it says.
        says, is_ = what_it_says(config), what_it_says(bundle._config(model))
        is_["frontend"] = {k: v for k, v in is_["frontend"].items() if k in says["frontend"]}
        is_["clip"] = {k: v for k, v in is_["clip"].items() if k in says["clip"]}
        if isinstance(says["head"], dict):
            says["head"] = {"sizes": says["head"]["sizes"]}
        says["backbone"] = {k: says["backbone"][k] for k in ("name", "config")}
        assert is_ == says
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # kB


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_weights_load_or_give_one_error(fuzzed, data):
    folder, original = fuzzed
    (folder / "config.json").write_text(json.dumps(original), encoding="utf-8")
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    kept = bytes(raw)
    try:
        for _ in range(data.draw(st.integers(1, 4))):
            # Mostly in the header, where there is something to break.
            at = data.draw(st.integers(0, 400) | st.integers(0, len(raw) - 1))
            raw[at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            raw = raw[: data.draw(st.integers(0, len(raw)))]
        file.write_bytes(raw)
        try:
            model = bundle.load(folder)
        except BundleError as error:
            assert "\n" not in str(error)
        else:
            assert model.num_parameters == 4 * 128 + 4 + 3 * 4 + 3
    finally:
        file.write_bytes(kept)
