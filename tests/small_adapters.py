"""Small adapters, with values as after training, and what a model says."""

import torch

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters

SMALL = ap.Houlsby(bottleneck=5)
# One of each kind, none at its default.
KINDS = {
    type(config).__name__: config
    for config in (
        SMALL,
        ap.Pfeiffer(bottleneck=5, activation="gelu"),
        ap.Parallel(bottleneck=5, activation="gelu", scale=0.5),
        ap.LoRA(rank=3, alpha=6.0, targets=("query", "attention_output", "ffn_in")),
        ap.Prefix(length=4),
        ap.MAM(bottleneck=3, activation="gelu", scale=2.0),
        ap.Fusion(adapters=2, bottleneck=3, activation="gelu"),
    )
}


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs)


def randomise(model):
    """Values as after training: no bias is 0, nothing is small."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
