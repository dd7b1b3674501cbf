"""Small adapters, with values as after training, and what a model says."""

import torch

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters

SMALL = ap.Houlsby(bottleneck=5)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs)


def randomise(model):
    """Values as after training: no bias is 0, nothing is small."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
