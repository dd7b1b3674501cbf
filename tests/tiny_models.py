"""A tiny random model of every known architecture, as transformers saves it."""

from pathlib import Path

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

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


def save_tiny_bart(folder: Path, tokenizer) -> None:
    """Write an encoder-decoder of two and two layers and the tokenizer."""
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=HIDDEN,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=INNER,
        decoder_ffn_dim=INNER,
        max_position_embeddings=64,
        init_std=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.sep_token_id,
        forced_eos_token_id=tokenizer.sep_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BartForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
