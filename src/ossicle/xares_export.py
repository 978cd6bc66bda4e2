"""Our networks and bundles as encoders of X-ARES: a class in a file that the benchmark imports.

X-ARES (Zhang et al. 2025, arXiv 2505.16369) asks for a torch module with ``sampling_rate``,
``output_dim`` and ``hop_size_in_ms`` that turns (B, N) into (B, T', D). B clips, N samples, T'
frames, D values.
"""

from __future__ import annotations

import hashlib
import json
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from ossicle import bundle
from ossicle.errors import OssicleError
from ossicle.heads import check_poolings
from ossicle.hear_export import (
    HOP_MS,
    HEARModel,
    get_scene_embeddings,
    get_timestamp_embeddings,
    load_model,
)
from ossicle.record import replaced

# One frame a clip: the longest that the benchmark demands of an encoder, ten minutes.
CLIP_HOP_MS = 600_000.0
_FILE = '''"""X-ARES encoder of the bundle {folder}; needs ossicle."""

from pathlib import Path

from ossicle import xares_export


class {name}(xares_export.XaresEncoder):
    """{text}"""

    def __init__(self) -> None:
        beside = Path(__file__).resolve().parent / {folder}
        super().__init__(beside, layers={layers}, poolings={poolings})
'''


class XaresEncoder(nn.Module):
    """A network of ours as X-ARES asks for it.

    Args:
        source: a bundle, of which the layers that its head reads are used, or a backbone's name as
            `ossicle backbones` has it, of which all are.
        layers: others instead, as ``Model.select_layers`` takes them.
        poolings: None: a frame each 50 ms, holding each layer's mean over its bands and the 50 ms.
            Otherwise one frame a clip with these poolings of each layer, which is what
            `ossicle embed` writes; for tasks with one label a clip.

    Attributes:
        sampling_rate: Hz of the audio it takes, the network's own.
        output_dim: D.
        hop_size_in_ms: from frame to frame.

    Raises:
        OssicleError: there is no such network, layer or pooling.
    """

    def __init__(
        self,
        source: str | Path,
        layers: str | Sequence[str | int] | None = None,
        poolings: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        loaded = load_model(str(source))
        model = loaded.model
        names = loaded.layers if layers is None else model.select_layers(layers)
        chosen = None if poolings is None else check_poolings(poolings)
        self.hear = HEARModel(model, names, chosen)
        # The benchmark resamples to any rate: to the network's own, once.
        self.hear.sample_rate = model.sample_rate
        self.poolings = chosen
        self.sampling_rate = model.sample_rate
        if chosen is None:
            self.output_dim = self.hear.timestamp_embedding_size
            self.hop_size_in_ms = HOP_MS
        else:
            self.output_dim = self.hear.scene_embedding_size
            self.hop_size_in_ms = CLIP_HOP_MS
        self.eval()

    def forward(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, N) or (N,) at ``sampling_rate``, in [-1, 1] -> (B, T', output_dim) float32.

        Each clip is run alone, so that it gives the same numbers in any batch.

        Args:
            audio: clips, padded to the same length.
            lengths: (B,) samples of each clip without its padding; frames past a clip's end are
                zeros then. X-ARES gives none: it hears the padding.

        Raises:
            OssicleError: the audio is not of such a shape, or a length is not in 1..N.
        """
        if audio.ndim == 1:
            audio = audio[None]
        if lengths is None:
            return self._frames(audio)
        counts = [int(count) for count in lengths]
        if audio.ndim != 2 or len(counts) != len(audio):
            raise OssicleError(f"{len(counts)} lengths for audio of {tuple(audio.shape)}")
        if wrong := [count for count in counts if not 1 <= count <= audio.shape[1]]:
            raise OssicleError(f"a length of {wrong[0]} samples in audio of {audio.shape[1]}")
        parts = [self._frames(clip[None, :n])[0] for clip, n in zip(audio, counts, strict=True)]
        return nn.utils.rnn.pad_sequence(parts, batch_first=True)

    def train(self, mode: bool = True) -> XaresEncoder:
        """Stays in evaluation: batch norms that used the batch would make clips depend on it."""
        return super().train(False)

    def _frames(self, audio: Tensor) -> Tensor:
        if self.poolings is None:
            return get_timestamp_embeddings(audio, self.hear)[0]
        return get_scene_embeddings(audio, self.hear)[:, None]


def write_encoder(
    source: str | Path,
    path: str | Path,
    *,
    layers: str | Sequence[str | int] | None = None,
    poolings: Sequence[str] | None = None,
) -> Path:
    """A file for ``python -m xares.run``, and its bundle beside it.

    The class is named after the file and what is in it, since X-ARES keeps embeddings by the name
    of the class: another network, layer or pooling never meets those of this one.

    Args:
        source: a bundle, or the name of a backbone of ours.
        path: the .py file; its folder is made if it is not there.
        layers: as for ``XaresEncoder``.
        poolings: as for ``XaresEncoder``.

    Returns:
        The file.

    Raises:
        OssicleError: the source, a layer or a pooling is unknown, or Python could not import a
            file of that name.
        BundleError: the folder cannot be written, or the network cannot be saved.
    """
    path = Path(path)
    stem = path.stem
    importable = re.fullmatch(r"[A-Za-z_]\w*", stem, re.ASCII) and not keyword.iskeyword(stem)
    if path.suffix != ".py" or not importable:
        raise OssicleError(
            f"{path.name!r}: X-ARES imports the file, so that it needs a name such as my_network.py"
        )
    made = XaresEncoder(source, layers, poolings)
    saved = bundle.save(made.hear.model, path.parent / f"{stem}.ossicle")
    digest = hashlib.sha256((saved / bundle.WEIGHTS).read_bytes())
    digest.update((saved / bundle.CONFIG).read_bytes())
    digest.update(repr((made.hear.layers, made.poolings)).encode())
    words = "".join(word.capitalize() for word in stem.split("_")) or "Network"
    held = "one frame a clip" if made.poolings else "a frame each 50 ms"
    text = _FILE.format(
        name=f"{words}_{digest.hexdigest()[:8]}_Encoder",
        text=f"{made.output_dim} values, {held}.",
        folder=json.dumps(saved.name),
        layers=list(made.hear.layers),
        poolings=None if made.poolings is None else list(made.poolings),
    )
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
