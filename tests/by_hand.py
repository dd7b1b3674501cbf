"""One BERT layer from its equations (Devlin et al. 2019), with gaps where adapters go."""

import math

import torch


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def bottleneck(adapter, x):
    """W_up gelu(W_down x + b_down) + b_up."""
    inner = gelu(x @ adapter.down.weight.T + adapter.down.bias)
    return inner @ adapter.up.weight.T + adapter.up.bias


def norm(n, x):
    centred = x - x.mean(-1, keepdim=True)
    return n.weight * centred / (centred.pow(2).mean(-1, keepdim=True) + n.eps).sqrt() + n.bias


def affine(linear, x):
    return x @ linear.weight.T + linear.bias


def bert_layer(
    layer,
    hidden,
    words,
    heads,
    *,
    query=affine,
    prefix=None,
    attention_end=lambda out: out,
    ffn_end=lambda out, read: out,
    last=norm,
):
    """The layer's output, (B, L, d).

    Args:
        words: (B, L) bool, True where there is a token.
        query: what replaces the query's linear map.
        prefix: (keys, values), each (l, d), in front of those of the text.
        attention_end, ffn_end: what is done to a sublayer's output; the second also gets what
            the feed-forward read.
        last: what replaces the last LayerNorm.
    """

    def split(x):
        return x.view(*x.shape[:-1], heads, -1).transpose(-2, -3)

    attention = layer.attention.self
    q = split(query(attention.query, hidden))
    k, v = (split(affine(part, hidden)) for part in (attention.key, attention.value))
    seen = words
    if prefix is not None:
        k, v = (
            torch.cat([split(front).expand(len(x), -1, -1, -1), x], dim=2)
            for front, x in zip(prefix, (k, v), strict=True)
        )
        seen = torch.cat([torch.ones(len(words), len(prefix[0]), dtype=torch.bool), words], dim=1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~seen[:, None, None, :], -math.inf)
    context = (scores.softmax(-1) @ v).transpose(1, 2).reshape(hidden.shape)
    out = attention_end(affine(layer.attention.output.dense, context))
    read = norm(layer.attention.output.LayerNorm, out + hidden)
    out = affine(layer.output.dense, gelu(affine(layer.intermediate.dense, read)))
    return last(layer.output.LayerNorm, ffn_end(out, read) + read)
