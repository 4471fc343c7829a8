"""Reference networks that take inputs in natural units, and `Normalize`, their first layer."""

from danskin.models.cnn import one_conv, small_cnn
from danskin.models.lipschitz import lipschitz_cnn, lipschitz_mlp
from danskin.models.mlp import linear, mlp
from danskin.models.normalize import Normalize
from danskin.models.preact_resnet import preact_resnet18
from danskin.models.registry import MODELS, Description, ModelInfo, build, describe
from danskin.models.resnet import cifar_resnet, resnet56
from danskin.models.wide_resnet import wide_resnet

__all__ = [
    "MODELS",
    "Description",
    "ModelInfo",
    "Normalize",
    "build",
    "cifar_resnet",
    "describe",
    "linear",
    "lipschitz_cnn",
    "lipschitz_mlp",
    "mlp",
    "one_conv",
    "preact_resnet18",
    "resnet56",
    "small_cnn",
    "wide_resnet",
]
