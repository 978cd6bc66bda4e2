"""Networks by name. To add one: write its file, add a line here, see CONTRIBUTING.md."""

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.baselines import MelStatistics, MFCCStatistics
from ossicle.backbones.choi_convnet import ChoiConvNet
from ossicle.backbones.densenet import DenseNet121
from ossicle.backbones.mobilenet_v2 import MobileNetV2
from ossicle.backbones.mobilenet_v3 import EfficientATMN04
from ossicle.backbones.resnet import ResNet18, ResNet50
from ossicle.backbones.weights import WEIGHTS
from ossicle.backbones.yamnet import YAMNet

BACKBONES: dict[str, type[Backbone]] = {
    "choi_convnet": ChoiConvNet,
    "densenet121": DenseNet121,
    "efficientat_mn04": EfficientATMN04,
    "mel": MelStatistics,
    "mfcc": MFCCStatistics,
    "mobilenet_v2": MobileNetV2,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "yamnet": YAMNet,
}

__all__ = ["BACKBONES", "WEIGHTS", "Backbone", "LayerInfo"]
