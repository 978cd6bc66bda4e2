"""Our networks as models of MTEB: its protocol by a stub of the same shapes, and itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ossicle import bundle, hear_export
from ossicle.errors import DataError, OssicleError
from ossicle.features import extract
from ossicle.model import create_model
from ossicle.mteb_export import MTEBEncoder, create_mteb_model


@dataclass
class StubMeta:
    """The fields of mteb 2.26's ModelMeta; like its own it takes no others."""

    loader: Any
    name: str | None
    revision: str | None
    release_date: str | None
    languages: list[str] | None
    n_parameters: int | None
    memory_usage_mb: float | None
    max_tokens: float | None
    embed_dim: int | None
    license: str | None
    open_weights: bool | None
    public_training_code: str | None
    public_training_data: str | bool | None
    framework: list[str]
    similarity_fn_name: str | None
    use_instructions: bool | None
    training_datasets: set[str] | None
    n_embedding_parameters: int | None = None
    modalities: Any = ("text",)
    experiment_kwargs: Any = None
    loader_kwargs: Any = None


@pytest.fixture
def stub(monkeypatch):
    """mteb as far as it is asked for."""
    models, kinds = types.ModuleType("mteb.models"), types.ModuleType("mteb.types")
    models.ModelMeta = StubMeta  # type: ignore[attr-defined]
    kinds.Licenses = Literal["not specified", "apache-2.0", "mit"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mteb", types.ModuleType("mteb"))
    monkeypatch.setitem(sys.modules, "mteb.models", models)
    monkeypatch.setitem(sys.modules, "mteb.types", kinds)


def clip(samples: int, rate: int, seed: int, channels: int = 0) -> dict[str, Any]:
    shape = (channels, samples) if channels else (samples,)
    array = np.random.default_rng(seed).uniform(-0.5, 0.5, shape)
    return {"array": array, "sampling_rate": rate}


CLIPS = [
    clip(16_000, 16_000, 0),
    clip(9_000, 8_000, 1),
    clip(50_000, 44_100, 2),
    clip(300, 16_000, 3),
]


def loader(clips: list[dict[str, Any]], batch_size: int) -> DataLoader:
    """As mteb's own: audio stays a list, other columns are collated."""
    rows = [{"audio": item, "label": i} for i, item in enumerate(clips)]
    return DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=lambda batch: {
            "audio": [row["audio"] for row in batch],
            "label": torch.tensor([row["label"] for row in batch]),
        },
    )


def encode(model: MTEBEncoder, clips: list[dict[str, Any]], batch_size: int = 32) -> np.ndarray:
    arguments = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    return model.encode(loader(clips, batch_size), **arguments, batch_size=batch_size)


@pytest.mark.usefixtures("stub")
def test_embeddings_are_those_of_embed():
    model = create_mteb_model("choi_convnet")
    got = encode(model, CLIPS)
    pairs = [(c["array"].astype(np.float32), c["sampling_rate"]) for c in CLIPS[:3]]
    want = extract(create_model("choi_convnet"), pairs).matrix()
    assert got.dtype == np.float32
    assert got.shape == (4, model.embed_dim)
    # The fourth is shorter than `embed` takes; a benchmark wants a row for it too.
    assert np.array_equal(got[:3], want)
    assert np.isfinite(got[3]).all()
    assert np.array_equal(
        model.get_audio_embeddings(loader(CLIPS, 3), show_progress_bar=False), got
    )


@pytest.mark.usefixtures("stub")
def test_a_clip_gives_the_same_in_any_batch():
    model = create_mteb_model("mel", layers="last", pooling="mean,max")
    whole = encode(model, CLIPS)
    for size in (1, 3):
        assert np.array_equal(encode(model, CLIPS, size), whole)
    assert np.array_equal(encode(model, CLIPS[::-1]), whole[::-1])
    assert encode(model, []).shape == (0, model.embed_dim)


@pytest.mark.usefixtures("stub")
def test_channels_are_averaged_and_tensors_taken():
    model = create_mteb_model("mel")
    wide = clip(8_000, 16_000, 5, channels=2)
    mono = {**wide, "array": wide["array"].mean(0)}
    tensor = {**wide, "array": torch.from_numpy(wide["array"])}
    rows = encode(model, [wide, mono, tensor])
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"array": np.zeros(100), "sampling_rate": None}, "clip 1 has no sampling rate"),
        ({"array": np.zeros(0), "sampling_rate": 16_000}, "no samples to hear"),
        ({"array": np.full(100, np.nan), "sampling_rate": 16_000}, "no samples to hear"),
        ({"array": np.zeros(100, np.int16), "sampling_rate": 16_000}, "clip 1 is int16"),
    ],
)
def test_what_is_no_audio_is_refused(item, told):
    model = create_mteb_model("mel")
    with pytest.raises(DataError, match=told) as error:
        encode(model, [CLIPS[0], item])
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("stub")
def test_tasks_of_text_are_refused():
    with pytest.raises(OssicleError, match="this task has text: the network takes audio"):
        create_mteb_model("mel").encode([{"text": ["How much?"]}])


@pytest.mark.usefixtures("stub")
def test_similarities_are_cosines():
    model = create_mteb_model("mel")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 8)), rng.normal(size=(5, 8))
    want = np.array([[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a])
    assert np.allclose(model.similarity(a, torch.from_numpy(b)), want, atol=1e-6)
    assert np.allclose(model.similarity(a[0], b), want[:1], atol=1e-6)
    assert np.allclose(model.similarity_pairwise(a, b[:3]), np.diag(want), atol=1e-6)


@pytest.mark.usefixtures("stub")
def test_the_description_tells_rows_apart(tmp_path):
    whole = create_mteb_model("choi_convnet")
    meta = whole.mteb_model_meta
    assert meta.name == "ossicle/choi_convnet"
    assert meta.modalities == ["audio"]
    assert meta.embed_dim == whole.embed_dim == encode(whole, CLIPS[:1]).shape[1]
    parameters = sum(p.numel() for p in create_model("choi_convnet").backbone.parameters())
    assert meta.n_parameters == parameters
    assert meta.license == "not specified"
    assert meta.experiment_kwargs is None
    part = create_mteb_model("choi_convnet", layers=[1, "last"], pooling=["mean"])
    assert part.mteb_model_meta.experiment_kwargs == {"layers": "1,last", "pooling": "mean"}
    assert part.mteb_model_meta.revision == meta.revision
    other = bundle.save(create_model("choi_convnet", seed=1), tmp_path / "choi_convnet.ossicle")
    again = create_mteb_model(other)
    assert again.mteb_model_meta.name == meta.name
    assert again.mteb_model_meta.revision != meta.revision


@pytest.mark.usefixtures("stub")
def test_the_description_makes_the_model_anew():
    """As ``ModelMeta.load_model`` does: name, revision, then the settings as keywords."""
    meta = create_mteb_model("choi_convnet", layers="2-3", pooling="max").mteb_model_meta
    made = meta.loader(meta.name, revision=meta.revision, **meta.experiment_kwargs, device="cpu")
    assert made.layers == hear_export.load_model("choi_convnet").layers[1:3]
    assert made.poolings == ("max",)


@pytest.mark.usefixtures("stub")
def test_what_is_unknown_is_refused():
    for arguments, told in (
        ({"name": "nothing_of_the_kind"}, "nothing_of_the_kind"),
        ({"name": "mel", "layers": "conv9"}, "conv9"),
        ({"name": "mel", "pooling": "median"}, "median"),
    ):
        with pytest.raises(OssicleError, match=told):
            create_mteb_model(**arguments)


def test_without_mteb_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "mteb.models", raising=False)
    with pytest.raises(OssicleError, match="pip install mteb") as error:
        create_mteb_model("mel")
    assert "\n" not in str(error.value)


def test_importing_the_module_imports_nothing_of_mteb():
    code = "import sys, ossicle.mteb_export; print('mteb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- mteb itself, where it is installed --------------------------------------------------------


def test_mteb_takes_it_for_an_encoder(monkeypatch):
    pytest.importorskip("mteb")
    from mteb.models import EncoderProtocol, ModelMeta

    model = create_mteb_model("mel", pooling="mean")
    assert isinstance(model, EncoderProtocol)
    theirs = inspect.signature(EncoderProtocol.encode).parameters
    ours = inspect.signature(MTEBEncoder.encode).parameters
    assert {name: p.kind for name, p in theirs.items()} == {
        name: p.kind for name, p in ours.items()
    }
    required = {name for name, field in ModelMeta.model_fields.items() if field.is_required()}
    assert required <= {f.name for f in fields(StubMeta)} <= set(ModelMeta.model_fields)
    assert model.mteb_model_meta.experiment_name
    monkeypatch.setattr(ModelMeta, "_check_requirements", lambda self: None)  # torchaudio
    again = model.mteb_model_meta.load_model(device="cpu")
    assert np.array_equal(encode(again, CLIPS), encode(model, CLIPS))


def test_mteb_scores_it(tmp_path):
    """A task of mteb's own kind: high tones against low ones, which mel means tell apart."""
    mteb = pytest.importorskip("mteb")
    datasets = pytest.importorskip("datasets")
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    t = np.arange(8_000) / 16_000

    def split(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        labels = [i % 2 for i in range(24)]
        tones = [
            np.sin(2 * np.pi * rng.uniform(*((200, 400), (2000, 4000))[y]) * t) for y in labels
        ]
        audio = [{"array": tone, "sampling_rate": 16_000} for tone in tones]
        return datasets.Dataset.from_dict({"audio": audio, "label": labels})

    class Tones(AbsTaskClassification):
        metadata = TaskMetadata(
            name="OssicleTones",
            description="High tones against low ones.",
            reference=None,
            dataset={"path": "none", "revision": "1"},
            type="AudioClassification",
            category="a2t",
            modalities=["audio"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="accuracy",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation="",
        )
        input_column_name = "audio"

        def load_data(self, **kwargs: Any) -> None:
            self.dataset = datasets.DatasetDict({"train": split(0), "test": split(1)})
            self.data_loaded = True

    model = create_mteb_model("mel", pooling="mean")
    result = mteb.evaluate(model, Tones(), cache=mteb.ResultCache(cache_path=tmp_path))
    assert result.model_name == "ossicle/mel"
    assert result.task_results[0].get_score() == 1.0
