"""Our networks as X-ARES encoders: its checker's rules, written down again, and the checker."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from ossicle import bundle, hear_export, xares_export
from ossicle.backbones import BACKBONES
from ossicle.cli_export import export_xares
from ossicle.errors import BundleError, OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.xares_export import XaresEncoder, write_encoder


def noise(samples: int, clips: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(clips, samples, generator=generator) * 2 - 1


def check_contract(encoder: torch.nn.Module, audio: torch.Tensor) -> torch.Tensor:
    """What ``xares.audio_encoder_checker`` demands, and that frames fit the hop."""
    assert type(encoder).__name__.endswith("Encoder")
    assert isinstance(encoder, torch.nn.Module)
    assert type(encoder.output_dim) is type(encoder.sampling_rate) is int
    out = encoder(audio)
    assert isinstance(out, torch.Tensor)
    assert out.dtype == torch.float32
    assert out.ndim == 3
    assert (out.shape[0], out.shape[2]) == (len(audio), encoder.output_dim)
    length_ms = 1000 * audio.shape[1] / encoder.sampling_rate
    assert out.shape[1] == max(1, round(length_ms / encoder.hop_size_in_ms))
    assert out.isfinite().all()
    return out


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder to import from, as ``python -m xares.run`` does from the folder it runs in."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def encoder_of(path):
    """The one attribute of the module that ends in "Encoder", made without arguments."""
    module = importlib.import_module(path.stem)
    names = [name for name in dir(module) if name.endswith("Encoder")]
    assert len(names) == 1
    return getattr(module, names[0])()


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_keeps_the_rules(name, monkeypatch):
    # Random weights serve; published ones are the business of the backbones' own tests.
    monkeypatch.setattr(hear_export, "WEIGHTS", {})
    encoder = XaresEncoder(name, layers="last")
    assert encoder.sampling_rate == create_model(name).sample_rate
    check_contract(encoder, noise(round(1.07 * encoder.sampling_rate), 2))


def test_all_layers_are_the_moments_of_hear():
    """Witness: the HEAR module, whose means a slow definition has checked."""
    encoder, hear = XaresEncoder("mel"), hear_export.load_model("mel")
    audio = noise(33_000, 2)
    want = hear_export.get_timestamp_embeddings(audio, hear)[0]
    assert torch.equal(check_contract(encoder, audio), want)
    assert torch.equal(encoder(audio[0]), want[:1])


def test_a_network_of_another_rate_is_asked_at_its_own():
    """MFCC hears 12 kHz: nothing is resampled inside, so that frames are those of the network."""
    encoder = XaresEncoder("mfcc")
    assert encoder.sampling_rate == 12_000
    audio = noise(12_000)
    frames = encoder.hear.model.forward_layers(audio)["mfcc"][0].double().numpy()
    cuts = np.linspace(0, 1000 * frames.shape[1], 21).round().astype(int)
    fine = np.repeat(frames, 1000, axis=1)
    want = np.stack([fine[:, a:b].mean(1) for a, b in zip(cuts[:-1], cuts[1:], strict=True)])
    assert np.allclose(encoder(audio)[0].numpy(), want, atol=1e-3)


def test_poolings_give_one_frame_a_clip_as_embed_has_it():
    encoder = XaresEncoder("mel", poolings=["max", "mean"])
    audio = noise(40_000, 3)
    out = check_contract(encoder, audio)
    model = create_model("mel")
    for clip, row in zip(audio.numpy(), out[:, 0].numpy(), strict=True):
        blocks = model.clip_features(clip, poolings=["max", "mean"])
        assert np.array_equal(row, np.concatenate(list(blocks.values())))


@pytest.mark.parametrize("poolings", [None, ["mean"]])
def test_a_clip_gives_the_same_in_any_batch(poolings):
    encoder = XaresEncoder("choi_convnet", layers="2-3", poolings=poolings)
    audio = noise(30_000, 3)
    whole = encoder(audio)
    assert torch.equal(encoder(audio[1:2]), whole[1:2])
    assert torch.equal(encoder(audio.flip(0)), whole.flip(0))
    assert torch.equal(encoder.train()(audio), whole)


def test_lengths_take_the_padding_away():
    encoder = XaresEncoder("mel")
    clips = [noise(n, seed=n)[0] for n in (9_000, 20_000, 16_000)]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    out = encoder(padded, torch.tensor([9_000, 20_000, 16_000]))
    for clip, row in zip(clips, out, strict=True):
        alone = encoder(clip)[0]
        assert torch.equal(row[: len(alone)], alone)
        assert not row[len(alone) :].any()
    # Without them the padding is heard, which the page says.
    assert encoder(padded).shape == out.shape
    assert not torch.equal(encoder(padded)[0], out[0])
    for wrong, told in (
        ([1, 2], "2 lengths"),
        ([1, 2, 0], "of 0 samples"),
        ([1, 2, 20_001], "20001"),
    ):
        with pytest.raises(OssicleError, match=told):
            encoder(padded, wrong)


def test_a_file_stands_alone(site):
    path = write_encoder("mel", site / "deep" / "my_mel.py", layers="last")
    assert path.is_file()
    assert bundle.is_bundle(site / "deep" / "my_mel.ossicle")
    sys.path.insert(0, str(site / "deep"))
    try:
        encoder = encoder_of(path)
    finally:
        sys.path.remove(str(site / "deep"))
    audio = noise(17_000, 2)
    assert torch.equal(check_contract(encoder, audio), XaresEncoder("mel", layers="last")(audio))


def test_classes_of_other_networks_and_layers_have_other_names(site):
    """X-ARES keeps embeddings by the class: a file written anew must not meet the old ones."""
    texts = []
    for source, layers, poolings in (
        ("choi_convnet", "last", None),
        ("choi_convnet", "1", None),
        ("choi_convnet", "last", ["mean"]),
        ("mel", "last", None),
    ):
        write_encoder(source, site / "same.py", layers=layers, poolings=poolings)
        texts.append((site / "same.py").read_text().partition("class ")[2].partition("(")[0])
    assert len(set(texts)) == 4
    assert all(text.startswith("Same_") and text.endswith("_Encoder") for text in texts)
    write_encoder("choi_convnet", site / "same.py", layers="last")
    again = (site / "same.py").read_text()
    assert f"class {texts[0]}(" in again


def test_a_bundle_gives_the_layers_that_its_head_reads(site):
    base = create_model("choi_convnet")
    head = Head([32, 2])
    torch.nn.init.zeros_(head.layers[0].weight)
    trained = Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=[f"{base.layers[1]}/mean"],
        head=head,
        classes=["a", "b"],
    )
    source = bundle.save(trained.eval(), site / "two.ossicle")
    encoder = encoder_of(write_encoder(source, site / "two_classes.py"))
    assert encoder.hear.layers == (base.layers[1],)
    assert encoder.output_dim == 32


@pytest.mark.parametrize("name", ["9lives.py", "my-net.py", "class.py", "net.txt", "net"])
def test_names_that_cannot_be_imported_are_refused(tmp_path, name):
    with pytest.raises(OssicleError, match="X-ARES imports the file"):
        write_encoder("mel", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_is_unknown_is_refused(tmp_path):
    for arguments, told in (
        ({"source": "nothing_of_the_kind"}, "nothing_of_the_kind"),
        ({"source": "mel", "layers": "conv9"}, "conv9"),
        ({"source": "mel", "poolings": ["median"]}, "median"),
    ):
        with pytest.raises(OssicleError, match=told):
            write_encoder(path=tmp_path / "net.py", **arguments)
    (tmp_path / "net.ossicle").mkdir()
    (tmp_path / "net.ossicle" / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle"):
        write_encoder("mel", tmp_path / "net.py")


def test_the_command(site):
    app = Typer()
    app.command("export-xares")(export_xares)
    app.command("other")(lambda: None)
    arguments = ["export-xares", "mel", "-o", "by_command.py", "--pooling", "mean,max"]
    done = CliRunner().invoke(app, [*arguments, "--layers", "last", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1]) == {"encoder": "by_command.py"}
    assert encoder_of(site / "by_command.py").output_dim == 128


def test_the_real_checker_agrees(site):
    checker = pytest.importorskip("xares.audio_encoder_checker")
    finder = pytest.importorskip("xares.utils")
    write_encoder("choi_convnet", site / "nets_choi.py")
    write_encoder("mfcc", site / "nets_mfcc.py", poolings=["mean"])
    for name in ("nets_choi.py", "nets_mfcc.py"):
        assert checker.check_audio_encoder(finder.attr_from_py_path(name, endswith="Encoder")())
    wrong = XaresEncoder("mel")
    wrong.output_dim += 1
    assert not checker.check_audio_encoder(wrong)
    assert xares_export.CLIP_HOP_MS == 600_000
