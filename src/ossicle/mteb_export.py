"""Our networks and bundles as models of MTEB, whose audio tasks take an encoder.

The protocol is that of ``mteb.models.EncoderProtocol`` (mteb 2): ``encode`` takes a data loader
whose batches hold {"audio": [{"array", "sampling_rate"}, ...]}, clips of any lengths. n clips, D
values. Nothing of mteb is imported before a model is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ossicle.audio import resample
from ossicle.errors import DataError, OssicleError
from ossicle.features import one_thread
from ossicle.heads import check_poolings, count_parameters
from ossicle.hear_export import load_model
from ossicle.model import Model

ORGANISATION = "ossicle"


class MTEBEncoder:
    """A network of ours as MTEB asks for it.

    Args:
        model: its front end and backbone are used; the head is not.
        layers: names of those whose poolings stand side by side.
        poolings: of each layer.
        meta: an ``mteb.models.ModelMeta``; MTEB reads the name and the revision from it.

    Attributes:
        mteb_model_meta: ``meta``.
        embed_dim: D.
    """

    def __init__(
        self, model: Model, layers: Sequence[str], poolings: Sequence[str], meta: Any = None
    ) -> None:
        self.model = model.eval()
        self.layers, self.poolings = tuple(layers), tuple(poolings)
        names = [f"{layer}/{pooling}" for layer in self.layers for pooling in self.poolings]
        self.embed_dim = sum(model.block_sizes(names).values())
        self.mteb_model_meta = meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Batches as of MTEB's loaders -> (n, embed_dim) float32, in their order.

        Each clip is run alone and whole with one thread, as `ossicle embed` does, so that its
        numbers depend on nothing beside it. What MTEB tells of the task changes nothing.

        Raises:
            OssicleError: a batch holds no audio, or a clip has no samples, no rate, or numbers
                that are not finite.
        """
        rows: list[np.ndarray] = []
        with one_thread():
            for batch in inputs:
                if "audio" not in batch:
                    raise OssicleError(
                        f"this task has {', '.join(batch) or 'nothing'}: the network takes audio"
                    )
                for item in batch["audio"]:
                    samples = self._samples(item, len(rows))
                    blocks = self.model.clip_features(samples, self.layers, self.poolings)
                    rows.append(np.concatenate(list(blocks.values())))
        return np.stack(rows) if rows else np.zeros((0, self.embed_dim), np.float32)

    def get_audio_embeddings(
        self, inputs: Iterable[Mapping[str, Any]], show_progress_bar: bool = True, **kwargs: Any
    ) -> np.ndarray:
        """As ``encode``; the name that wrappers in MTEB have for it."""
        return self.encode(inputs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(n, D), (m, D) -> (n, m) cosines; (D,) counts as one row."""
        return _unit(embeddings1) @ _unit(embeddings2).mT

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(n, D), (n, D) -> (n,) cosines of rows."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)

    def _samples(self, item: Mapping[str, Any], number: int) -> np.ndarray:
        """(N,) float32 at the network's rate; several channels are averaged."""
        rate = item["sampling_rate"]
        samples = np.asarray(item["array"])
        if rate is None or int(rate) < 1:
            raise DataError(f"clip {number} has no sampling rate")
        if samples.dtype.kind != "f":
            raise DataError(
                f"clip {number} is {samples.dtype}: pass floating point in [-1, 1] "
                "(16-bit integers / 32768)"
            )
        if samples.ndim == 2:
            samples = samples.mean(0)
        if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
            raise DataError(f"clip {number}, of shape {samples.shape}, has no samples to hear")
        resampled = resample(samples, int(rate), self.model.sample_rate)
        return resampled if len(resampled) else samples[:1].astype(np.float32)


def create_mteb_model(
    name: str | Path,
    *,
    layers: str | Sequence[str | int] | None = None,
    pooling: str | Sequence[str] | None = None,
    device: str | None = None,
) -> MTEBEncoder:
    """A model for ``mteb.evaluate``.

    Args:
        name: a bundle, of which the layers and poolings that its head reads are used, or a
            backbone as `ossicle backbones` has it, of which all layers and its own poolings are;
            published weights are loaded where there are any.
        layers: others instead, as ``Model.select_layers`` takes them: "last", "1-5,last".
        pooling: others instead: "mean", "mean,max" or a sequence.
        device: of torch; None stays where the model is.

    Raises:
        OssicleError: mteb is not installed, or there is no such network, layer or pooling.
    """
    meta_class, licences = _mteb()
    loaded = load_model(str(name))
    model = loaded.model if device is None else loaded.model.to(device)
    names = loaded.layers if layers is None else model.select_layers(layers)
    split = pooling.replace(" ", "").split(",") if isinstance(pooling, str) else pooling
    chosen = loaded.poolings if split is None else check_poolings(split)
    encoder = MTEBEncoder(model, names, chosen)
    # Results are kept by name and these: other layers never meet those of this row.
    asked = {"layers": layers, "pooling": pooling}
    settings = {key: _text(value) for key, value in asked.items() if value is not None}
    parameters = count_parameters(model.backbone)
    licence = str(model.info.get("licence", "")).lower()
    encoder.mteb_model_meta = meta_class(
        loader=partial(_load, source=str(name)),
        loader_kwargs={},
        name=f"{ORGANISATION}/{Path(name).stem if Path(name).exists() else name}",
        revision=_revision(model),
        release_date=None,
        languages=None,
        n_parameters=parameters,
        n_embedding_parameters=0,
        memory_usage_mb=round(4 * parameters / 2**20, 1),
        max_tokens=float("inf"),
        embed_dim=encoder.embed_dim,
        license=licence if licence in licences else "not specified",
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=None,
        modalities=["audio"],
        experiment_kwargs=settings or None,
    )
    return encoder


def _load(
    model_name: str, revision: str | None = None, *, source: str, **kwargs: Any
) -> MTEBEncoder:
    """What MTEB calls to make the model anew from its description."""
    known = {key: kwargs[key] for key in ("layers", "pooling", "device") if key in kwargs}
    return create_mteb_model(source, **known)


def _mteb() -> tuple[Any, tuple[str, ...]]:
    """The class of descriptions, and the licences that it knows."""
    try:
        from mteb.models import ModelMeta
        from mteb.types import Licenses
    except ImportError as error:
        raise OssicleError(f"mteb cannot be imported ({error}): pip install mteb") from error
    return ModelMeta, get_args(Licenses)


def _revision(model: Model) -> str:
    """A name for the weights of front end and backbone."""
    digest = hashlib.sha256(repr(model.frontend.config()).encode())
    for key, tensor in model.backbone.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _text(value: str | Sequence[str | int]) -> str:
    return value if isinstance(value, str) else ",".join(str(part) for part in value)


def _unit(embeddings: Any) -> Tensor:
    """Rows of length 1; rows of zeros stay."""
    rows = torch.atleast_2d(torch.as_tensor(embeddings).float())
    return torch.nn.functional.normalize(rows, dim=-1)
