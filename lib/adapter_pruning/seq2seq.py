"""An encoder-decoder that writes: BART, pretrained or small and random."""

import hashlib

import torch
from torch import Tensor, nn

from .places import Architecture, Backbone

# BART's dropouts are functions, not modules: each sublayer's end is its last linear map, so that
# an adapter there comes before the dropout. The decoder's attention to the source has no adapters;
# the code of He et al. (2022, SparseAdapter) puts some there too.
ENCODER_DECODERS = {
    "bart": Architecture(
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        attention="self_attn",
        attention_output="self_attn.out_proj",
        attention_end="self_attn.out_proj",
        ffn_in="fc1",
        ffn_out="fc2",
        ffn_end="fc2",
        ffn_norm="final_layer_norm",
        layers=("model.encoder.layers", "model.decoder.layers"),
    )
}
TINY = "tiny-bart"
_WIDTH = 64


class Seq2Seq(Backbone):
    """A transformer that reads a source and writes a target, without a head to train.

    Its logits are products with the token embeddings, which are as frozen as the rest. Both
    stacks are its `encoder`: what the library does to an encoder it does to both.
    """

    writes = True
    pooling = "none"

    def __init__(self, network: nn.Module, tokenizer, name: str):
        super().__init__(network, tokenizer, ENCODER_DECODERS[network.config.model_type], name)
        self.head = nn.Identity()

    @property
    def dropout_rate(self) -> float:
        """Probability of the dropout at the end of each sublayer."""
        return self.encoder.config.dropout

    def forward(self, input_ids: Tensor, attention_mask: Tensor, target_ids: Tensor) -> Tensor:
        """Logits (B, T, vocabulary) of every target token, given the source and those before it.

        Args:
            input_ids, attention_mask: the source, (B, L).
            target_ids: (B, T), as they are to be written; they are shifted by one place here.
        """
        before = self.encoder.prepare_decoder_input_ids_from_labels(target_ids)
        source = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self.encoder(**source, decoder_input_ids=before, use_cache=False).logits

    def write(self, input_ids: Tensor, attention_mask: Tensor, **how) -> list[str]:
        """The B texts that the model writes about B sources.

        Args:
            input_ids, attention_mask: the sources, (B, L).
            how: as for transformers' `GenerationConfig`; what it leaves open is the model's own.
        """
        from transformers import GenerationConfig

        source = {"input_ids": input_ids, "attention_mask": attention_mask}
        ids = self.encoder.generate(**source, generation_config=GenerationConfig(**how))
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


def tiny_config(source: str):
    """The configuration of `TINY`: 2 + 2 layers, 4 heads, width 64.

    The weights' standard deviation is one over the root of the width. With BART's own 0.02 the
    logits of so narrow a model are all but equal, and adapters beside it could not change that.

    Args:
        source: a folder with a tokenizer, whose vocabulary it gets.
    """
    from transformers import AutoTokenizer, BartConfig

    tokenizer = AutoTokenizer.from_pretrained(source)
    end = tokenizer.sep_token_id
    return BartConfig(
        vocab_size=len(tokenizer),
        d_model=_WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=4 * _WIDTH,
        decoder_ffn_dim=4 * _WIDTH,
        max_position_embeddings=512,  # as many as any training takes
        init_std=_WIDTH**-0.5,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=end,
        decoder_start_token_id=end,  # as in every BART
        forced_eos_token_id=end,
    )


def random_network(config, source: str, attention: str, seed: int) -> tuple[nn.Module, object]:
    """A network of that configuration, whose weights the seed fixes, and its tokenizer."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention)
    return network, AutoTokenizer.from_pretrained(source)


def random_revision(network: nn.Module) -> str:
    """`random:` and sixteen hex digits over the weights that were drawn."""
    digest = hashlib.sha256()
    for _, parameter in sorted(network.named_parameters()):
        digest.update(parameter.detach().numpy().tobytes())
    return f"random:{digest.hexdigest()[:16]}"
