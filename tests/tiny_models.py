"""A tiny random model of every known architecture, as transformers saves it."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

from adapter_pruning.backbones import ARCHITECTURES

HIDDEN, INNER, LAYERS = 32, 64, 2
CLASSES = {
    "bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
    "mpnet": (MPNetConfig, MPNetModel),
}


def save_tiny(kind: str, folder: Path, tokenizer) -> None:
    """Write a model of two layers and the tokenizer."""
    config_class, model_class = CLASSES[kind]
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=INNER,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config, add_pooling_layer=ARCHITECTURES[kind].has_pooler)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
