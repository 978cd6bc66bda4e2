"""Networks by name. To add one: write its file, add a line here, see CONTRIBUTING.md."""

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.baselines import MelStatistics, MFCCStatistics
from ossicle.backbones.choi_convnet import ChoiConvNet
from ossicle.backbones.weights import WEIGHTS
from ossicle.backbones.yamnet import YAMNet

BACKBONES: dict[str, type[Backbone]] = {
    "choi_convnet": ChoiConvNet,
    "mel": MelStatistics,
    "mfcc": MFCCStatistics,
    "yamnet": YAMNet,
}

__all__ = ["BACKBONES", "WEIGHTS", "Backbone", "LayerInfo"]
