"""CPC: what is heard so far says which of several sounds comes next.

van den Oord et al. 2018, arXiv 1807.03748, sections 2.2 and 2.3; in both directions Kawakami et al.
2020, arXiv 2001.11128. B items, T frames, D channels of a frame, H of a context, K steps ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ossicle.backbones import BACKBONES, Backbone
from ossicle.backbones.cpc_encoder import CPCEncoder
from ossicle.errors import OssicleError
from ossicle.pretrain.objective import Pretraining
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

STEPS_AHEAD = 12
NEGATIVES = 128
HIDDEN = 256


def draw_negatives(
    step: Step, n_frames: int, negatives: int, own_share: float
) -> tuple[Tensor, Tensor]:
    """Frames to be told from the right one, for each item of this process.

    Args:
        step: says which items these are; its generator draws for the joint batch.
        n_frames: T.
        negatives: N, how many.
        own_share: of them from the item itself, as far as it has frames; the others are of other
            items of this process.

    Returns:
        (B, A + 1) different times of the item itself, of which `info_nce` uses A; and (B, N - A)
        frames of other items, as places in (B * T,), possibly some of them twice. A single item
        has no others: then there are no more than T - 1 negatives.
    """
    items = step.rows.stop - step.rows.start
    own_count = min(round(negatives * own_share), n_frames - 1)
    if items == 1:
        own_count = min(negatives, n_frames - 1)
    other_count = negatives - own_count if items > 1 else 0
    places = torch.rand(step.size, n_frames, generator=step.generator)[step.rows]
    drawn = torch.rand(step.size, other_count, generator=step.generator)[step.rows]
    own = places.topk(own_count + 1, dim=1).indices
    # 0 to below (B - 1) T, from the end of the item itself on; a float32 product could reach it.
    apart = (drawn.double() * ((items - 1) * n_frames)).long()
    first = torch.arange(items)[:, None] * n_frames + n_frames
    return own, (first + apart) % (items * n_frames)


def info_nce(
    z: Tensor, contexts: Tensor, weights: Tensor, own: Tensor, others: Tensor
) -> tuple[Tensor, Tensor]:
    """InfoNCE (1807.03748, eq. 3 and 4), mean over items, times and steps ahead.

    For item i, time t and k = 1..K, with f(z) = z^T W_k c_t:
    -log(exp f(z_{t+k}) / (exp f(z_{t+k}) + sum over negatives n of exp f(n))). Where nothing is
    known it is log(N + 1).

    The negatives of an item's time s = t + k are its ``others``, and its ``own`` but for s, or but
    for the last where s is not among them: always as many, and never what is to be found.

    Args:
        z: (B, T, D) frames, T at least 2.
        contexts: (B, T, H), each from frames up to its own.
        weights: (K, D, H); steps beyond T - 1 are left out.
        own: (B, A + 1) different times of the item itself.
        others: (B, M) places in (B * T,).

    Returns:
        The loss (), and how often the right frame is the likeliest (), both float32.
    """
    z, contexts, weights = z.float(), contexts.float(), weights.float()
    n_frames = z.shape[1]
    rows = torch.arange(len(z), device=z.device)[:, None]
    candidates = torch.cat([z[rows, own], z.flatten(0, 1)[others]], 1)
    out = own[:, None] == torch.arange(n_frames, device=z.device)[:, None]  # (B, T, A + 1)
    out[..., -1] |= ~out.any(-1)
    out = nn.functional.pad(out, (0, others.shape[1]))
    losses, found = [], []
    for k, weight in enumerate(weights[: n_frames - 1], start=1):
        guess = contexts[:, :-k] @ weight.T
        right = (guess * z[:, k:]).sum(-1)
        wrong = (guess @ candidates.transpose(1, 2)).masked_fill(out[:, k:], float("-inf"))
        both = torch.cat([right[..., None], wrong], -1)
        losses.append((both.logsumexp(-1) - right).mean())
        found.append((right > wrong.amax(-1)).float().mean())
    return torch.stack(losses).mean(), torch.stack(found).mean()


class CPC(Pretraining):
    """InfoNCE over the steps ahead, and those behind where there is a backward context.

    Frames are the last layer's, their bands averaged, under a GRU of the objective's own; of a
    ``CPCEncoder`` they are those of its last convolution, under its own context network. It means
    most where a frame hears little beyond itself: what overlaps with its future need not predict
    it.

    Args:
        backbone: what is trained.
        views: front end and augmentations.
        steps_ahead: K.
        negatives: N, for each frame to be found; from this process's items.
        own_share: of them from the item itself, the others from other items.
        hidden: H, where the context network is the objective's own.
        bidirectional: predict what came before from what follows, too; None: where the backbone's
            own context network does.
        crop_s: length of a crop, so that one too short is refused at once and not at the first
            step.

    Raises:
        OssicleError: a number is out of range, ``bidirectional`` is not what the backbone is, or a
            crop has one frame only.
    """

    num_views = 1

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        steps_ahead: int = STEPS_AHEAD,
        negatives: int = NEGATIVES,
        own_share: float = 0.5,
        hidden: int = HIDDEN,
        bidirectional: bool | None = None,
        crop_s: float | None = None,
    ) -> None:
        super().__init__(backbone, views)
        if min(steps_ahead, negatives, hidden) < 1 or not 0 <= own_share <= 1:
            raise OssicleError(
                "CPC needs steps_ahead, negatives and hidden above 0 and own_share from 0 to 1"
            )
        self.negatives, self.own_share = negatives, own_share
        last = backbone.feature_info[-1]
        self.name = _name(backbone)
        self.stride = last.stride
        self.frame_s = last.stride * views.frontend.hop_s
        self.context: nn.GRU | None = None
        if isinstance(backbone, CPCEncoder):
            size, hidden = backbone.feature_info[-2].channels, backbone.hidden
            if bidirectional not in (None, backbone.bidirectional):
                raise OssicleError(
                    f"{self.name} has bidirectional={backbone.bidirectional}, the objective "
                    f"{bidirectional}: give it to the backbone alone"
                )
            bidirectional = backbone.bidirectional
        else:
            size = last.channels
            self.context = nn.GRU(size, hidden, batch_first=True, bidirectional=bool(bidirectional))
        self.directions = 2 if bidirectional else 1
        # So small that the first guesses are all alike: training starts at chance.
        weights = torch.randn(self.directions, steps_ahead, size, hidden) / (size * hidden) ** 0.5
        self.weights = nn.Parameter(weights)
        if crop_s is not None:
            frames = views.frontend.num_frames(round(crop_s * views.frontend.sample_rate))
            self._check_frames(-(-frames // last.stride))

    def forward(self, batch: Batch, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (), and how often the right frame is the likeliest."""
        picture = self.views(batch, step)[0]
        self._check_frames(-(-picture.shape[-1] // self.stride))
        maps = self.backbone(picture)
        # Scores of several hundred frames differ by less than half precision can tell.
        with torch.autocast(batch.waveforms.device.type, enabled=False):
            z, contexts = self._frames(maps)
            self._check_frames(z.shape[1])
            first, *backward = contexts.chunk(self.directions, -1)
            sides = [(z, first), *((z.flip(1), c.flip(1)) for c in backward)]
            results = []
            for (frames, c), weights in zip(sides, self.weights, strict=True):
                drawn = draw_negatives(step, z.shape[1], self.negatives, self.own_share)
                own, others = (index.to(z.device) for index in drawn)
                results.append(info_nce(frames, c, weights, own, others))
            loss, found = (torch.stack(values).mean() for values in zip(*results, strict=True))
        return loss, {"found": found}

    def _frames(self, maps: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, T, D) frames, and (B, T, H) contexts, of two directions side by side."""
        names = list(maps)
        if self.context is None:
            z, contexts = (maps[name].float().transpose(1, 2) for name in names[-2:])
            return z, contexts
        last = maps[names[-1]].float()
        z = (last.mean(2) if last.dim() == 4 else last).transpose(1, 2).contiguous()
        return z, self.context(z)[0]

    def _check_frames(self, n_frames: int) -> None:
        if n_frames < 2:
            raise OssicleError(
                f"CPC has nothing to predict: {self.name} has a frame each {self.frame_s:.3g} s, "
                "and a crop holds only one; choose longer crops or another backbone"
            )


def _name(backbone: Backbone) -> str:
    kinds = {kind: name for name, kind in BACKBONES.items()}
    return kinds.get(type(backbone), type(backbone).__name__)
