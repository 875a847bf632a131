"""Networks: backbones, projectors and heads. They know neither losses nor loops."""

from skdeepcluster.networks._backbones import (
    build_backbone,
    default_image_backbone,
    is_pretrained,
    least_side,
    output_width,
    rebuild_backbone,
    same_backbone,
    timm_recipe,
)
from skdeepcluster.networks._decoders import build_critic, build_decoder, frozen_parameters
from skdeepcluster.networks._denoisers import build_denoiser
from skdeepcluster.networks._embedding import (
    ClusterModel,
    EmbeddingNetwork,
    FrozenBackbone,
    Standardize,
    full_precision,
    multilayer_perceptron,
)
from skdeepcluster.networks._heads import (
    CosineHead,
    EmbeddingOpinion,
    MergedLabels,
    MergedOpinion,
    PrototypeHead,
    PrototypePerceptron,
    most_likely,
)
from skdeepcluster.networks._teacher import EMATeacher

__all__ = [
    "ClusterModel",
    "CosineHead",
    "EMATeacher",
    "EmbeddingNetwork",
    "EmbeddingOpinion",
    "FrozenBackbone",
    "MergedLabels",
    "MergedOpinion",
    "PrototypeHead",
    "PrototypePerceptron",
    "Standardize",
    "build_backbone",
    "build_critic",
    "build_decoder",
    "build_denoiser",
    "default_image_backbone",
    "frozen_parameters",
    "full_precision",
    "is_pretrained",
    "least_side",
    "most_likely",
    "multilayer_perceptron",
    "output_width",
    "rebuild_backbone",
    "same_backbone",
    "timm_recipe",
]
