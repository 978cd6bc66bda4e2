"""Networks by name. To add one: write its file, add a line here, see CONTRIBUTING.md."""

import ossicle
from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.baselines import MelStatistics, MFCCStatistics
from ossicle.backbones.choi_convnet import ChoiConvNet
from ossicle.backbones.cldnn import CLDNN
from ossicle.backbones.cpc_encoder import CPCEncoder
from ossicle.backbones.crnn import CRNN
from ossicle.backbones.densenet import DenseNet121
from ossicle.backbones.families import FAMILIES, is_family, open_family
from ossicle.backbones.frame_crnn import FrameCRNN
from ossicle.backbones.hf import HFBackbone
from ossicle.backbones.mobilenet_v2 import MobileNetV2
from ossicle.backbones.mobilenet_v3 import EfficientATMN04
from ossicle.backbones.musicnn import MusiCNN, MusiCNNMSD
from ossicle.backbones.nfnet import NFNetF0
from ossicle.backbones.resnet import ResNet18, ResNet50
from ossicle.backbones.slowfast_nfnet import SlowFastNFNetF0
from ossicle.backbones.speaker_encoder import SpeakerEncoder
from ossicle.backbones.speech_embedding import SpeechEmbedding
from ossicle.backbones.stapes import Stapes
from ossicle.backbones.weights import WEIGHTS
from ossicle.backbones.yamnet import YAMNet

BACKBONES: dict[str, type[Backbone]] = {
    "choi_convnet": ChoiConvNet,
    "cldnn": CLDNN,
    "cpc_encoder": CPCEncoder,
    "crnn": CRNN,
    "densenet121": DenseNet121,
    "efficientat_mn04": EfficientATMN04,
    "frame_crnn": FrameCRNN,
    "mel": MelStatistics,
    "mfcc": MFCCStatistics,
    "mobilenet_v2": MobileNetV2,
    "musicnn": MusiCNN,
    "musicnn_msd": MusiCNNMSD,
    "nfnet_f0": NFNetF0,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "slowfast_nfnet_f0": SlowFastNFNetF0,
    "speaker_encoder": SpeakerEncoder,
    "speech_embedding": SpeechEmbedding,
    "stapes": Stapes,
    "yamnet": YAMNet,
}

DEFAULT_BACKBONE = ossicle.DEFAULT_BACKBONE

# Those that a bundle can rebuild from its own files.
REBUILDABLE: dict[str, type[Backbone]] = {**BACKBONES, "hf": HFBackbone}

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "FAMILIES",
    "REBUILDABLE",
    "WEIGHTS",
    "Backbone",
    "LayerInfo",
    "is_family",
    "open_family",
]
