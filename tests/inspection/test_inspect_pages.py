"""What `ossicle inspect` shows of networks and separators, and what it leaves on disk."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner

from ossicle import bundle
from ossicle.backbones.gammatone import erb_centres_hz
from ossicle.cli_inspect import inspect_bundle
from ossicle.errors import BundleError, OssicleError
from ossicle.frontend.mel import mel_edges_hz
from ossicle.inspection.convolutions import convolutions
from ossicle.inspection.exhibit import Exhibit, Inspection
from ossicle.inspection.folder import write_inspection
from ossicle.inspection.look import look
from ossicle.inspection.partition import activations, decoded
from ossicle.inspection.pictures import new_figure
from ossicle.inspection.speakers import bins_of
from ossicle.inspection.transforms import analysis_filters
from ossicle.model import create_model
from ossicle.record import record
from ossicle.separators.deep_clustering import DeepClustering
from ossicle.separators.end_to_end import EndToEnd
from ossicle.separators.nmf import NMF
from ossicle.separators.nonnegative_autoencoder import NonnegativeAutoencoder
from ossicle.separators.partitioned_autoencoder import PartitionedAutoencoder
from ossicle.separators.spectral_gate import SpectralGate
from ossicle.separators.unfolded_nmf import UnfoldedNMF

RATE = 8000


def fresh(name):
    return create_model(name, seed=0)


def shown(found):
    return {exhibit.name: exhibit for exhibit in found.exhibits}


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    """Tones that come and go over noise, as LibriMix lays such things out."""
    root = tmp_path_factory.mktemp("mixtures")
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    for part in ("test", "dev"):
        for name in ("mix", "s1", "s2"):
            (root / part / name).mkdir(parents=True)
        for i in range(8):
            tone = 0.3 * np.sin(2 * np.pi * (400 + 150 * i) * t) * (t < 0.5)
            noise = 0.05 * rng.normal(size=RATE)
            for name, samples in (("mix", tone + noise), ("s1", tone), ("s2", noise)):
                path = root / part / name / f"{i}.wav"
                soundfile.write(path, samples.astype(np.float32), RATE, subtype="FLOAT")
    return root


def test_steps_of_yamnets_kernels_are_those_of_its_strides():
    model = fresh("yamnet")
    found = {c.name: c for c in convolutions(model)}
    first, deep = found["blocks.conv1.0"], found["blocks.depthwise4.0"]
    assert (first.hears, first.band_step, first.frame_s) == ("picture", 1, pytest.approx(0.01))
    assert (deep.hears, deep.band_step, deep.frame_s) == ("maps", 4, pytest.approx(0.04))
    assert deep.depthwise
    assert not found["blocks.pointwise4.0"].depthwise
    torch.testing.assert_close(
        torch.from_numpy(first.kernels), model.backbone.blocks["conv1"][0].weight.double()
    )


def test_a_network_on_waveforms_shows_its_gammatones():
    found = look("cldnn", fresh)
    exhibits = shown(found)
    table = exhibits["tconv_conv_responses"].table
    np.testing.assert_allclose(table["centre_hz"][8:], erb_centres_hz(40, 125, 7500)[8:], rtol=0.01)
    assert table["centre_hz"].is_monotonic_increasing
    assert table["change"].max() < 1e-6
    assert "as they were before" in exhibits["tconv_conv_responses"].caption
    assert "fconv_0_kernels" in exhibits
    assert found.numbers["layers"][0]["name"] == "tconv"


def test_a_network_on_mel_bands_shows_kernels_in_hz():
    found = look("choi_convnet", fresh, largest=5)
    exhibits = shown(found)
    bands = exhibits["front_end"].table
    np.testing.assert_allclose(bands["centre_hz"], mel_edges_hz(96, 0, 6000)[1:-1], atol=1.5)
    kernels = exhibits["blocks_block1_0_kernels"]
    # Slaney's scale at 1 kHz: 27 steps to a factor of 6.4, and these bands' own step.
    step = np.diff(mel_edges_hz(96, 0, 6000))[30]
    assert f"{step:.3g}"[:3] in kernels.caption
    assert "the 5 of largest norm of 32" in kernels.caption.lower()
    assert len(kernels.table) == 32
    spectra = exhibits["spectra_over_time"].table
    assert len(spectra) == 5
    # Random kernels of three steps are even but for their draw.
    assert spectra["mean_cycles_per_step"].between(0.2, 0.3).all()


def test_without_convolutions_it_says_what_is_not_there():
    found = look("mfcc", fresh)
    assert set(shown(found)) == {"front_end", "front_end_widths"}
    assert any("no convolutions" in note for note in found.notes)
    assert any("no weights" in note for note in found.notes)


def test_clips_compare_layers_and_draw_clouds(carried_clips):
    found = look("choi_convnet", fresh, clips=carried_clips, most=20)
    numbers = found.numbers
    assert numbers["cka"]["layers"] == [f"block{i}" for i in range(1, 6)]
    np.testing.assert_allclose(np.diag(numbers["cka"]["matrix"]), 1)
    assert numbers["clips"]["n_clips"] == 20
    table = shown(found)["clouds"].table
    assert table["layer"].tolist() == numbers["cka"]["layers"]
    assert table["agreement"].between(0, 1).all()
    assert (table["low"] <= table["agreement"]).all()
    assert any("drawn at random" in note for note in found.notes)
    assert len(shown(found)["layer_cka"].table) == 10


def test_bad_sources_are_one_line(tmp_path):
    with pytest.raises(BundleError, match="not a bundle"):
        look(str(tmp_path), fresh)
    with pytest.raises(OssicleError, match="unknown backbone"):
        look("yamnett", fresh)
    with pytest.raises(OssicleError, match="no separator"):
        look("choi_convnet", fresh, mixtures=tmp_path)
    gate = bundle.save(SpectralGate(), tmp_path / "gate")
    with pytest.raises(OssicleError, match="--mixtures, not --clips"):
        look(str(gate), fresh, clips=tmp_path)
    with pytest.raises(OssicleError, match="--random is for networks"):
        look(str(gate), fresh, random=True)
    assert "nothing in this system is learnt" in look(str(gate), fresh).notes[0]


def test_bases_of_nmf_by_centroid_and_use(tmp_path, mixtures):
    separator = NMF(RATE, ["tone", "noise"], [4, 2], 256, 64)
    bins = torch.arange(129.0)[:, None]
    with torch.no_grad():
        tones = torch.exp(-((bins - torch.tensor([[60.0, 13, 30, 90]])) ** 2) / 8)
        separator.bases.copy_(torch.cat([tones, torch.ones(129, 2)], 1))
        separator.bases /= separator.bases.norm(dim=0)
    found = look(str(bundle.save(separator, tmp_path / "nmf")), fresh, mixtures=mixtures, most=1)
    table = shown(found)["bases"].table
    tone = table[table["source"] == "tone"]
    assert tone["column"].tolist() == [1, 2, 0, 3]
    np.testing.assert_allclose(tone["centroid_hz"], [13 * 31.25, 30 * 31.25, 60 * 31.25, 2812.5])
    # The first mixture has a tone of 400 Hz, bin 12.8.
    assert tone.set_index("column")["share"].idxmax() == 1
    assert tone["share"].sum() == pytest.approx(1)
    assert found.facts["system"] == "nmf"


def test_unfolded_bases_tell_what_training_changed(tmp_path):
    separator = UnfoldedNMF(RATE, ["a", "b"], [3, 3], 256, 64, n_layers=4, n_trained=2)
    with torch.no_grad():
        separator.bases.copy_(torch.rand(129, 6, generator=torch.Generator().manual_seed(0)))
        separator.changes[1] = 0.5
    exhibits = shown(look(str(bundle.save(separator, tmp_path / "u")), fresh))
    changes = exhibits["changes"].table
    assert changes["layer"].tolist() == ["layer 3", "layer 4"]
    assert changes["mean_change"].tolist() == pytest.approx([0, 0.5])
    pd.testing.assert_frame_equal(exhibits["bases"].table, exhibits["bases_before"].table)


def test_decoded_latents_of_an_autoencoder_are_its_weights(tmp_path, mixtures):
    torch.manual_seed(0)
    separator = NonnegativeAutoencoder(RATE, ["a", "b"], 256, 64, sizes=[5])
    found = look(str(bundle.save(separator, tmp_path / "nae")), fresh, mixtures=mixtures, most=1)
    table = shown(found)["decoder"].table
    # With |x|, one layer and no bias, a latent at 1 decodes to the size of its weights.
    weights = separator.autoencoders[1].decoder.maps[0].weight.abs().double().detach().numpy()
    frequencies = np.arange(129) * RATE / 256
    want = np.sort(frequencies @ weights / weights.sum(0))
    np.testing.assert_allclose(table[table["source"] == "b"]["centroid_hz"], want, rtol=1e-6)


def test_end_to_end_filters_are_what_the_transform_convolves_with(tmp_path):
    separator = EndToEnd(RATE, ["a", "b"], 16, 32, 8, hidden=4, n_blocks=1)
    impulse = torch.zeros(1, 65)
    impulse[0, 32] = 1
    heard = torch.nn.functional.conv1d(impulse[:, None], separator.transform.filters)[0]
    filters = analysis_filters(separator)
    for row, answer in zip(filters, heard.detach().double().numpy(), strict=True):
        np.testing.assert_allclose(answer[1:33], row, atol=1e-7)
    exhibits = shown(look(str(bundle.save(separator, tmp_path / "e")), fresh))
    assert exhibits["analysis_responses"].table["change"].max() < 1e-6
    assert exhibits["synthesis_responses"].table["centre_hz"].is_monotonic_increasing


def test_bins_of_deep_clustering_are_told_from_the_truth(mixtures, tmp_path):
    torch.manual_seed(0)
    separator = DeepClustering(RATE, 64, 32, hidden=4, n_layers=1, embedding=3)
    found = look(str(bundle.save(separator, tmp_path / "dc")), fresh, mixtures=mixtures)
    numbers = found.numbers["kmeans"]
    assert numbers["n_mixtures"] == 8
    assert 0.4 < numbers["low"] <= numbers["agreement"] <= numbers["high"] <= 1
    assert set(shown(found)) == {"bins", "dimensions", "weights"}
    t = np.arange(RATE) / RATE
    sources = np.stack([np.sin(2 * np.pi * f * t) for f in (1000, 3000)]).astype(np.float32)
    bins = bins_of(separator, sources.sum(0), sources)
    # Below 2 kHz (bin 16) the first is the louder one, above it the second.
    sure = bins.bins != 16
    np.testing.assert_array_equal(bins.truth[sure], (bins.bins[sure] > 16).astype(int))
    assert bins_of(separator, np.zeros(RATE, np.float32), 0 * sources) is None


def test_a_latent_that_hears_the_foreground_is_found(tmp_path, mixtures):
    separator = PartitionedAutoencoder(
        RATE, ["tone", "noise"], n_bands=8, n_foreground=2, n_background=1, kernel=1
    )
    with torch.no_grad():
        separator.to_latents.weight.zero_()
        separator.to_latents.bias.zero_()
        # Latent 0 hears the bands up to 2 kHz, where the tones are; latent 1 hears nothing.
        separator.to_latents.weight[0, :4] = 1
        separator.to_latents.weight[2] = 0.1
        separator.to_bands.weight.zero_()
        separator.to_bands.bias.zero_()
        separator.to_bands.weight[3, 0] = 2
    path = bundle.save(separator, tmp_path / "pae")
    found = look(str(path), fresh, mixtures=mixtures)
    table = shown(found)["foreground_frames"].table
    # All right in 8 groups: Clopper and Pearson's limit.
    assert table["auc"][0] == 1
    assert table["low"][0] == pytest.approx(0.025 ** (1 / 8))
    assert table["auc"][1] == 0.5
    pictures = decoded(separator)
    # Latent 0 at 3 gives 6 in band 3 at the middle frame, and nothing else anywhere.
    want = np.zeros_like(pictures[0])
    want[3, 16] = 6
    np.testing.assert_allclose(pictures[0], want)
    assert not pictures[1].any()
    assert activations(separator, np.zeros(640, np.float32)).shape == (3, 6)
    rows = [{"path": f"test/{k}/{i}.wav", "label": k} for k in ("mix", "s2") for i in range(8)]
    pd.DataFrame(rows).to_csv(mixtures / "clips.csv", index=False)
    with pytest.raises(OssicleError, match="--without: one of mix, s2"):
        look(str(path), fresh, clips=mixtures / "clips.csv")
    found = look(str(path), fresh, clips=mixtures / "clips.csv", without="s2", groups="none")
    assert shown(found)["foreground_clips"].table["auc"][0] == 1


def test_mixtures_of_another_rate_are_refused(tmp_path, mixtures):
    path = bundle.save(NonnegativeAutoencoder(16_000, ["a", "b"], sizes=[2]), tmp_path / "b")
    with pytest.raises(OssicleError, match="8000 Hz, the bundle is for 16000 Hz"):
        look(str(path), fresh, mixtures=mixtures)


def simple_exhibit(name="one", **changes):
    def draw():
        figure, axes = new_figure(2, 1)
        axes[0, 0].plot([0, 1])
        return figure

    table = pd.DataFrame({"x": [1.0, 2.5]})
    values = {"section": "S", "title": "A <b>", "caption": "c", "alt": "two", "draw": draw}
    return Exhibit(name, **{**values, "table": table, "shown": True, **changes})


def test_the_folder_is_whole_and_the_page_names_its_files(tmp_path):
    found = Inspection("net <x>", {"layers": "2"}, [simple_exhibit()], ["a note"], {"n": 1})
    out = tmp_path / "page"
    made = record({}, seed=0)
    page = write_inspection(found, out, record=made, command="ossicle inspect x")
    html = page.read_text()
    assert sorted(p.name for p in out.iterdir()) == [
        *("index.html", "inspect.json", "one-dark.png", "one.csv", "one.png", "one.svg")
    ]
    assert "net &lt;x&gt;" in html
    assert "<script" not in html
    for name in re.findall(r'(?:src|srcset|href)="([^"]+)"', html):
        assert (out / name).is_file()
    assert (out / "one.png").read_bytes() != (out / "one-dark.png").read_bytes()
    assert 'alt="two"' in html
    told = json.loads((out / "inspect.json").read_text())
    assert told["record"]["seed"] == 0
    assert told["exhibits"][0]["name"] == "one"
    before = (out / "one.png").read_bytes()
    write_inspection(found, out, record=made)
    assert (out / "one.png").read_bytes() == before

    def fails():
        raise OSError(28, "No space left on device")

    broken = Inspection("y", exhibits=[simple_exhibit(), simple_exhibit("two", draw=fails)])
    with pytest.raises(OssicleError, match="No space left"):
        write_inspection(broken, out, record=made)
    assert "net &lt;x&gt;" in (out / "index.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["page"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(OssicleError, match="holds something else"):
        write_inspection(found, tmp_path / "mine", record=made)


def test_the_command_prints_a_summary_and_json():
    app = typer.Typer()
    app.command()(inspect_bundle)
    done = CliRunner().invoke(app, ["choi_convnet", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert [row["name"] for row in told["numbers"]["layers"]] == [f"block{i}" for i in range(1, 6)]
    done = CliRunner().invoke(app, ["choi_convnet"])
    assert "rank" in done.output
    assert "block5" in done.output
