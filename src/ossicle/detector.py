"""A model that says for every frame of a recording which classes sound in it.

B batch, N samples, C channels, K classes, T frames; time is last. Strong scores are those of
frames, weak scores those of a whole clip, made from them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ossicle.backbones import Backbone
from ossicle.backbones.clip_policy import ClipPolicy
from ossicle.backbones.frame_crnn import BASES, FrameCRNN
from ossicle.errors import OssicleError
from ossicle.events import FrameScores
from ossicle.frontend import FrontEnd, create_frontend
from ossicle.heads import Head
from ossicle.model import Model, channels_last, create_model

# Not ossicle.DEFAULT_BACKBONE: every layer of a base must be frames in their order of time, and
# what docs/results says of detectors was measured with this one.
DEFAULT_BASE = "yamnet"
# Of a window, the share that the next one hears too.
OVERLAP = 0.25
# Recurrent layers go through several windows nearly as fast as through one.
WINDOWS_AT_ONCE = 8


class Detector(Model):
    """A head on every frame of the backbone's last map, and a pooling of frames to clips.

    With p[t] = sigmoid(z[t]) the probability of a class in frame t, its probability in the clip is

        sum_t w[t] p[t] / sum_t w[t],

    the attention pooling of Wang, Li and Metze 2019 (arXiv 1810.09050, table 1) with w = exp(v),
    v a second head's output for that class, where there is one; and otherwise the linear softmax
    pooling of the same table, w = p. (The baseline of DCASE 2023 task 4 takes a softmax over
    classes for w, which for one class is no attention.)

    Args:
        frontend, backbone, clip, classes, info: as for ``Model``; the last layer has no bands.
        head: (B, C) -> (B, K) logits of a frame, C the channels of the last layer.
        attention: (B, C) -> (B, K), v; None is the linear softmax.

    Raises:
        OssicleError: as for ``Model``; the last layer has bands, or the attention does not go with
            it and the classes.
    """

    framewise = True
    head: Head

    def __init__(
        self,
        frontend: FrontEnd,
        backbone: Backbone,
        *,
        clip: ClipPolicy,
        head: Head,
        attention: Head | None = None,
        classes: Sequence[str] = (),
        info: dict[str, Any] | None = None,
    ) -> None:
        last = backbone.feature_info[-1]
        if last.bands:
            raise OssicleError(f"frames are read from a layer without bands, not from {last.name}")
        super().__init__(
            frontend,
            backbone,
            clip=clip,
            readout=(f"{last.name}/mean",),
            head=head,
            classes=classes,
            task="multilabel",
            info=info,
        )
        if attention is not None and (
            attention.sizes[0] != last.channels or attention.sizes[-1] != len(self.classes)
        ):
            raise OssicleError(
                f"the attention is {attention.sizes[0]} to {attention.sizes[-1]}, the frames have "
                f"{last.channels} values and there are {len(self.classes)} classes"
            )
        self.attention = attention

    @property
    def frame_hop_s(self) -> float:
        """Seconds from one frame's beginning to the next's; frame t begins t of them in."""
        return self.frontend.hop_s * self.backbone.feature_info[-1].stride

    @property
    def context_s(self) -> float:
        """Seconds of sound on either side with which a frame is well heard; the overlap's length.

        Whoever cuts a recording into blocks gives each so much of what lies around it.
        """
        return OVERLAP * self.clip.window_s

    def frame_logits(
        self, waveform: Tensor, n_frames: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, N) at `sample_rate`, `min_s` to `window_s` long -> logits (B, K, T) and (B, K).

        Sigmoids of the first are the strong scores, of the second the weak ones. Gradients pass.

        Args:
            waveform: clips.
            n_frames: (B,) how many of its frames are a clip's own, where shorter ones were filled
                up: the weak logits then come from those alone; None is all.
        """
        return self._logits(self.forward_layers(waveform)[self.layers[-1]], n_frames)

    @torch.no_grad()
    def front(self, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> all that training does not change: to be kept instead of made anew each time.

        Returns:
            "mel", the front end's picture (B, 1, F, T); and where the backbone has a frozen base,
            its layers as ``FrameCRNN.frozen`` has them. Time is last.
        """
        picture = channels_last(self.frontend(waveform))
        network = self._folded_backbone()
        return (
            network.frozen(picture) if isinstance(network, FrameCRNN) else OrderedDict(mel=picture)
        )

    def logits_of_front(
        self, parts: Mapping[str, Tensor], n_frames: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As ``frame_logits``, from what ``front`` gives; gradients reach all but the base."""
        network = self.backbone
        if isinstance(network, FrameCRNN):
            maps = network.learned(parts)
        else:
            maps = network(channels_last(parts["mel"]))
        return self._logits(maps[self.layers[-1]], n_frames)

    def fit_statistics(self, fronts: Iterable[Mapping[str, Tensor]]) -> None:
        """Scale the backbone's inputs by those of training recordings, as ``front`` gives them.

        Once, before training; a backbone without statistics of its own stays as it is.

        Raises:
            OssicleError: there are none.
        """
        if isinstance(self.backbone, FrameCRNN):
            self.backbone.fit_statistics(fronts)

    def _logits(self, last: Tensor, n_frames: Tensor | None) -> tuple[Tensor, Tensor]:
        strong = self.head.frames(last)
        weights = None if self.attention is None else self.attention.frames(last)
        if n_frames is None:
            return strong, pool_frames(strong, weights)
        own = torch.arange(strong.shape[-1], device=strong.device) < n_frames[:, None]
        return strong, pool_frames(strong, weights, own[:, None])

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, N) waveforms, from `min_s` to `window_s` of the clip policy -> (B, K) weak logits."""
        return self.frame_logits(waveform)[1]

    @torch.inference_mode()
    def frame_scores(self, samples: np.ndarray) -> FrameScores:
        """(N,) float32 at `sample_rate` -> the scores of its frames, seconds from its beginning.

        Up to `window_s` the network hears all at once. What is longer is cut into windows of that
        length, each of which shares a quarter with the next; where they overlap, the one fades
        into the other: near a window's border, where a frame is heard without what follows or came
        before, it hardly counts. The last frame lasts until the end of the samples.

        Raises:
            OssicleError: the samples are not (N,).
        """
        strong, _ = self._joined(samples)
        hop = self.frame_hop_s
        edges = np.arange(strong.shape[-1] + 1) * hop
        edges[-1] = len(samples) / self.sample_rate
        return FrameScores(strong.float().cpu().numpy(), edges)

    @torch.inference_mode()
    def clip_scores(self, samples: np.ndarray) -> np.ndarray:
        """(N,) float32 at `sample_rate` -> (K,) weak scores: the pooling over all of its frames."""
        strong, weights = self._joined(samples)
        if weights is None:
            weights = strong.clamp(min=torch.finfo(strong.dtype).tiny).log()
        share = (weights - weights.amax(-1, keepdim=True)).exp()
        scores = (strong * share).sum(-1) / share.sum(-1)
        return scores.float().cpu().numpy()

    def requires_grad_(self, requires_grad: bool = True) -> Detector:
        """As for any module, but for a frozen base, which stays frozen."""
        super().requires_grad_(requires_grad)
        self.backbone.requires_grad_(requires_grad)
        return self

    def scores_from_vectors(self, vectors: Tensor) -> np.ndarray:
        """Refused: the score of a clip's mean frame is not what its frames say.

        Raises:
            OssicleError: always.
        """
        raise OssicleError("a detector scores frames, not a clip's mean: use clip_scores")

    def _joined(self, samples: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """(N,) -> (K, T) float64: probabilities of all frames, and their log-weights."""
        if np.ndim(samples) != 1:
            raise OssicleError(f"one clip is (N,) samples, not {np.shape(samples)}")
        spans, hop = self._spans(len(samples)), self._hop_samples
        # Windows of one length go through together; the last may be shorter.
        whole = [span for span in spans if span[1] - span[0] == spans[0][1] - spans[0][0]]
        groups = [whole[i : i + WINDOWS_AT_ONCE] for i in range(0, len(whole), WINDOWS_AT_ONCE)]
        groups += [[span] for span in spans[len(whole) :]]
        total: Tensor | None = None
        for group in groups:
            values = self._heard([samples[start:end] for start, end in group])
            if len(spans) == 1:
                total, weight = values[0], values.new_ones(values.shape[-1])
                break
            n_frames = values.shape[-1]
            if total is None:
                length = -(-len(samples) // hop) + n_frames
                total = values.new_zeros(*values.shape[1:-1], length)
                weight = values.new_zeros(length)
            position = torch.arange(n_frames, device=values.device, dtype=values.dtype) + 0.5
            taper = torch.minimum(position, n_frames - position).clamp(max=n_frames * OVERLAP)
            for (start, _), value in zip(group, values, strict=True):
                there = slice(start // hop, start // hop + n_frames)
                total[..., there] += taper * value
                weight[there] += taper
        assert total is not None
        own = spans[-1][0] // hop + n_frames if len(spans) > 1 else total.shape[-1]
        mean = total[..., :own] / weight[:own]
        return mean[0], mean[1] if len(mean) > 1 else None

    def _heard(self, windows: list[np.ndarray]) -> Tensor:
        """Windows of one length -> (B, 1 or 2, K, T) float64: probabilities, log-weights."""
        n_samples = len(windows[0])
        filled = [self.clip.filled(samples, self.sample_rate) for samples in windows]
        batch = torch.from_numpy(np.stack(filled).astype(np.float32)).to(self.device)
        maps = self._folded_backbone()(channels_last(self.frontend(batch)))[self.layers[-1]]
        # Frames that begin after the samples' end stand for what was filled up.
        last = maps[..., : max(1, -(-n_samples // self._hop_samples))]
        strong = self.head.frames(last).double().sigmoid()
        if self.attention is None:
            return strong[:, None]
        return torch.stack([strong, self.attention.frames(last).double()], 1)

    def _spans(self, n_samples: int) -> list[tuple[int, int]]:
        """(start, end) in samples of the windows, which begin with frames; see ``frame_scores``.

        The last one ends with the samples, and may be shorter by less than a frame.
        """
        hop = self._hop_samples
        longest = max(1, round(self.clip.window_s * self.sample_rate))
        if n_samples <= longest:
            return [(0, n_samples)]
        window = max(1, longest // hop) * hop
        step = max(1, round((1 - OVERLAP) * window / hop)) * hop
        last = -(-(n_samples - window) // hop) * hop
        starts = [*range(0, last, step), last]
        return [(start, min(start + window, n_samples)) for start in starts]

    @property
    def _hop_samples(self) -> int:
        return round(self.frame_hop_s * self.sample_rate)


def pool_frames(strong: Tensor, weights: Tensor | None = None, own: Tensor | None = None) -> Tensor:
    """Logits of frames -> logits of clips, see ``Detector``; no probability is ever rounded to 1.

    logit(sum w p / sum w) = log sum w p - log sum w (1 - p), each sum a logsumexp.

    Args:
        strong: (B, K, T) logits z.
        weights: (B, K, T) logarithms v of the attention; None is the linear softmax, log p.
        own: (B, 1 or K, T) bool, the frames that count, at least one; None is all.

    Returns:
        (B, K).
    """
    yes, no = F.logsigmoid(strong), F.logsigmoid(-strong)
    weights = yes if weights is None else weights
    if own is not None:
        weights = weights.masked_fill(~own, -torch.inf)
    return (weights + yes).logsumexp(-1) - (weights + no).logsumexp(-1)


def create_detector(
    classes: Sequence[str],
    backbone: str = "frame_crnn",
    *,
    base: str | Model | None = DEFAULT_BASE,
    pretrained: bool = True,
    attention: bool = True,
    seed: int = 0,
    **config: Any,
) -> Detector:
    """A detector that has learned nothing yet, but for its frozen base; ready to be trained.

    Args:
        classes: names of what it shall tell, in order.
        backbone: "frame_crnn", or any network whose last layer has no bands, such as "crnn".
        base: of "frame_crnn": a name in ``ossicle.backbones.frame_crnn.BASES``; a model with such
            a backbone, trained by oneself, whose weights are copied; None for log-mel alone. Other
            backbones have none.
        pretrained: the named base with its published weights, else random.
        attention: pool frames to clips by attention, else by the linear softmax.
        seed: of all random weights.
        config: keywords of the backbone's constructor.

    Raises:
        OssicleError: there is no such network or keyword, its last layer has bands, the base is of
            another width or kind, or there is no class.
        DownloadError: the base's weights are not to be had.
    """
    if not classes:
        raise OssicleError("a detector needs at least one class")
    source: Model | None = None
    if backbone == "frame_crnn" and base is not None:
        name = base if isinstance(base, str) else base_name(base)
        config["base"] = name
        if isinstance(base, Model):
            source = base
        elif pretrained and name in BASES:
            source = create_model(name, pretrained=True)
    made = create_model(backbone, seed=seed, **config)
    network, info = made.backbone, dict(made.info)
    if source is not None and isinstance(network, FrameCRNN) and network.base is not None:
        network.base.load_state_dict(source.backbone.state_dict())
        for key in ("licence", "origin"):
            if source.info.get(key):
                info[key] = source.info[key]
        given = source.info.get("weights") or source.info.get("name") or "its own"
        info["weights"] = f"base: {given}; the rest random, seed {seed}"
        info["pretrained"] = bool(source.info.get("pretrained", True))
    width = network.num_features
    with torch.random.fork_rng(devices=[]):  # torch's constructors draw; the caller's numbers stay
        torch.manual_seed(seed)
        head = Head([width, len(classes)])
        weights = Head([width, len(classes)]) if attention else None
    return (
        Detector(
            made.frontend,
            network,
            clip=made.clip,
            head=head,
            attention=weights,
            classes=classes,
            info=info,
        )
        .eval()
        .requires_grad_(True)
    )


def base_name(model: Model) -> str:
    """The name in ``BASES`` of a model's backbone.

    Raises:
        OssicleError: it is none of them, or not of the width that they have there.
    """
    for name, base in BASES.items():
        if type(model.backbone) is base.network:
            plain = base.network().config()
            if model.backbone.config() == plain and model.frontend.config() == (
                create_frontend(**base.network.frontend).config()
            ):
                return name
    raise OssicleError(
        f"frames are read from {', '.join(BASES)} as they come, not from a "
        f"{type(model.backbone).__name__} of other keywords or another front end"
    )
