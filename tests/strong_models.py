"""Encoder weights as large as after training, so that every head and every column has a say."""

import torch

import adapter_pruning as ap

ATTENTIONS = ("eager", "sdpa")
TEXTS = ["a film with a heart and a head", "dull"]  # the second is padded


def strong(model):
    """Draw the encoder from N(0, 0.3): with 0.02 the heads of a tiny one do next to nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if "LayerNorm" not in name:
                parameter.normal_(0, 0.3, generator=generator)
    return model


def load_strong(folder, task, **options):
    """The model of a folder in evaluation mode, with such weights."""
    return strong(ap.load_model(str(folder), task, device="cpu", **options).eval())


def hidden(model, inputs):
    """The encoder's last hidden states, (B, L, d)."""
    with torch.no_grad():
        return model.encoder(**inputs).last_hidden_state
