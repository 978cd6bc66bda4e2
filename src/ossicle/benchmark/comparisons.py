"""The rows that a suite is read against: hand-made features, random weights, published networks."""

from __future__ import annotations

from ossicle.benchmark.entries import Entry
from ossicle.finetune.strategy import Strategy

# Label -> strategy. Baselines first, so that a run that is stopped has them.
_ROWS = {
    "MFCC": "probe backbone=mfcc layers=all",
    "mel statistics": "probe backbone=mel layers=all",
    "yamnet, last layer": "probe backbone=yamnet layers=last pooling=mean",
    "yamnet, last layer, every pooling": "probe backbone=yamnet layers=last",
    "yamnet, all layers": "probe backbone=yamnet layers=all",
    "yamnet, random weights": "probe backbone=yamnet random=true layers=all",
    "efficientat_mn04, last layer": "probe backbone=efficientat_mn04 layers=last pooling=mean",
    "efficientat_mn04, last layer, every pooling": "probe backbone=efficientat_mn04 layers=last",
    "efficientat_mn04, all layers": "probe backbone=efficientat_mn04 layers=all",
    "musicnn, all layers": "probe backbone=musicnn layers=all",
    "speech_embedding, all layers": "probe backbone=speech_embedding layers=all",
    "speaker_encoder, all layers": "probe backbone=speaker_encoder layers=all",
    "mobilenet_v2 (ImageNet), all layers": "probe backbone=mobilenet_v2 layers=all",
    "crnn (spectrogram), random weights": "probe backbone=crnn random=true layers=all",
    "cldnn (waveform), random weights": "probe backbone=cldnn random=true layers=all",
    "SlowFast NFNet 1/8, random weights": (
        "probe backbone=slowfast_nfnet_f0 random=true layers=all set.width=1/8"
    ),
    "NFNet 1/8, random weights": "probe backbone=nfnet_f0 random=true layers=all set.width=1/8",
}


def comparisons() -> list[Entry]:
    """One entry a row; networks of one's own are added by their bundle."""
    return [Entry(Strategy.parse(text), label) for label, text in _ROWS.items()]
