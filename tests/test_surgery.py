"""Cutting: what is left says what the whole says with those gates at 0, and trains alike."""

import copy
from contextlib import nullcontext

import pytest
import torch
from small_adapters import KINDS, logits, randomise
from small_xsum import made_up
from some_masks import mask_of
from strong_models import ATTENTIONS, hidden
from transformers import BertConfig, BertModel

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.backbones import Model
from adapter_pruning.gates import gated, units_of
from adapter_pruning.seq2seq import TINY
from adapter_pruning.surgery import cut

HEADS = {"0.heads": [1, 0, 1, 1], "1.heads": [0, 1, 0, 0]}
COLUMNS = {"0.ffn": [1, 0, 0, 1] * 16, "1.ffn": [0, 1] * 32}
SOME = {
    "heads": mask_of(**HEADS),
    "columns": mask_of(**COLUMNS),
    "both": mask_of(**HEADS, **COLUMNS),
    "one layer": mask_of(**{"1.heads": [1, 1, 0, 1]}),
    "no columns left": mask_of(**{"0.ffn": [0] * 64}),
}
HEADLESS = mask_of(**{"0.heads": [0] * 4, "1.heads": [1, 0, 0, 1]})
EXACT = {"rtol": 0, "atol": 1e-5}
BASE, HEAD, COLUMN = 109_483_778, 196_800, 2 * 768 + 1


@pytest.fixture
def model(strong_model):
    return strong_model()


@pytest.fixture(params=ATTENTIONS)
def attending(request, model):
    """The model with each kind of attention in turn."""
    if model.encoder.config.model_type == "mpnet" and request.param == "sdpa":
        pytest.skip("MPNet has only its own attention")
    model.encoder.set_attn_implementation(request.param)
    return model


@pytest.fixture
def headless(model):
    """The model with no heads left in the first layer."""
    return without_heads(model)


def without_heads(model):
    with pytest.warns(UserWarning, match="layer 0 loses all its heads"):
        return cut(model, HEADLESS)


def with_gates(model, keep, inputs):
    """Hidden states of the whole model with the gates at 0; they do change what it says."""
    whole = hidden(model, inputs)
    with gated(model, keep):
        expected = hidden(model, inputs)
    assert (expected - whole).abs().max() > 0.1
    return expected


# What is left


@pytest.mark.parametrize("keep", SOME.values(), ids=SOME)
def test_a_gate_at_0_is_a_unit_that_is_not_there(attending, inputs, keep):
    expected = with_gates(attending, keep, inputs)
    assert cut(attending, keep) is attending
    torch.testing.assert_close(hidden(attending, inputs), expected, **EXACT)


def test_a_layer_without_heads_says_what_it_says_with_all_gates_at_0(attending, inputs):
    expected = with_gates(attending, HEADLESS, inputs)
    torch.testing.assert_close(hidden(without_heads(attending), inputs), expected, **EXACT)


@pytest.mark.parametrize("keep", [*SOME.values(), HEADLESS], ids=[*SOME, "no heads left"])
@pytest.mark.filterwarnings("ignore:layer 0 loses all its heads")
def test_in_bfloat16_too_as_far_as_its_8_bits_go(model, inputs, keep):
    exact = with_gates(model, keep, inputs)
    model.bfloat16()
    gates = with_gates(model, keep, inputs)
    # Neighbours in 8 bits are up to 2^-8 of the largest value apart. A sum in another order can
    # round to the neighbour, once in each of the four sublayers.
    step = 2.0**-8 * exact.abs().max().item()
    torch.testing.assert_close(hidden(cut(model, keep), inputs), gates, rtol=0, atol=4 * step)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_both_on_the_real_minilm(minilm, inputs, attention):
    model = minilm().eval()
    model.encoder.set_attn_implementation(attention)
    whole = units_of(model)
    keep = ap.random_mask(whole, whole.total // 2, seed=0)
    expected = with_gates(model, keep, inputs)
    torch.testing.assert_close(hidden(cut(model, keep), inputs), expected, **EXACT)


def test_what_is_cut_is_known_and_the_rest_counts_as_kept(model):
    whole = units_of(model)
    assert model.cut is None
    cut(model, SOME["one layer"])
    assert model.cut == ap.Mask({**whole, **SOME["one layer"]})
    assert {name: len(kept) for name, kept in units_of(model).items()} == {
        "0.heads": 4,
        "0.ffn": 64,
        "1.heads": 3,
        "1.ffn": 64,
    }


# Training


@pytest.mark.parametrize("keep", [SOME["both"], HEADLESS], ids=["both", "no heads left"])
@pytest.mark.filterwarnings("ignore:layer 0 loses all its heads")
def test_what_is_whole_gets_the_gradients_it_has_with_gates(model, inputs, keep):
    twin = cut(copy.deepcopy(model), keep)
    with gated(model, keep):
        model(**inputs).square().sum().backward()
    twin(**inputs).square().sum().backward()
    whole, left = (dict(m.named_parameters()) for m in (model, twin))
    same = [n for n in whole if whole[n].shape == left[n].shape and whole[n].grad is not None]
    assert "encoder.embeddings.word_embeddings.weight" in same
    for name in same:
        size = whole[name].grad.abs().max().item()
        torch.testing.assert_close(left[name].grad, whole[name].grad, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_layer_without_heads_learns_through_its_output_bias(headless, inputs, bf16):
    headless.train()
    with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext():
        loss = headless(**inputs).float().square().sum()
    loss.backward()
    bias = next(headless.layers()).part("attention_output").bias
    assert bias.grad.isfinite().all()
    assert bias.grad.any()


def test_what_was_frozen_stays_frozen_and_the_rest_trains(model):
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    cut(model, SOME["both"])
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


# Parameters


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_bert_base_loses_exactly_the_parameters_of_what_is_cut():
    model = Model(BertModel(BertConfig()), None, 2, "pooler", "BERT-base")
    assert size(model) == BASE
    keep = units_of(model)
    heads = ap.random_mask(ap.Mask({n: keep[n] for n in keep if n.endswith("heads")}), 101, seed=0)
    columns = torch.arange(3072) >= 10
    cut(model, ap.Mask({**heads, "3.ffn": columns}))
    assert size(model) == BASE - 43 * HEAD - 10 * COLUMN


def test_a_layer_without_heads_keeps_the_bias_of_its_output_projection(headless):
    layer = next(headless.layers())
    sizes = [size(layer.part(n)) for n in ("query", "key", "value", "attention_output")]
    assert sizes == [0, 0, 0, 32]


# Adapters and copies


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Fusion"])
def test_every_kind_of_adapter_attaches_to_a_cut_model_trains_and_comes_off(headless, inputs, kind):
    before, state = logits(headless, inputs), copy.deepcopy(headless.state_dict())
    randomise(ap.attach(headless, KINDS[kind]))
    assert not torch.equal(logits(headless, inputs), before)
    headless(**inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter_parameters(headless).values())
    ap.detach(headless)
    assert torch.equal(logits(headless, inputs), before)
    assert list(headless.state_dict()) == list(state)
    assert all(torch.equal(t, state[name]) for name, t in headless.state_dict().items())


def test_a_copy_of_a_cut_model_is_on_its_own(headless, inputs):
    before = hidden(headless, inputs)
    twin = copy.deepcopy(headless)
    assert torch.equal(hidden(twin, inputs), before)
    assert twin.cut == headless.cut
    with torch.no_grad():  # the bias of the layer without heads, which only its own forward reads
        next(twin.layers()).part("attention_output").bias += 1
    assert torch.equal(hidden(headless, inputs), before)
    assert not torch.equal(hidden(twin, inputs), before)


# Refused


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (mask_of(**{"2.heads": [1, 1, 1, 0]}), ["'2.heads'", "the model has not"]),
        (mask_of(**{"0.neurons": [1, 0]}), ["'0.neurons'", "the model has not"]),
        (mask_of(**{"1.heads": [1, 0, 1]}), ["'1.heads'", "(3,)", "(4,)"]),
        (mask_of(**{"0.heads": [0, 1, 1, 1], "0.ffn": [1, 0]}), ["'0.ffn'", "(2,)", "(64,)"]),
    ],
)
def test_a_mask_of_another_model_is_refused_and_nothing_is_cut(model, refused, keep, said):
    before = size(model)
    with refused(*said):
        cut(model, keep)
    assert (size(model), model.cut) == (before, None)


def test_a_model_with_lora_is_refused_and_nothing_is_cut(model, refused):
    before = size(ap.attach(model, KINDS["LoRA"]))
    with refused("has adapters", "cut first, then attach"):
        cut(model, SOME["heads"])
    assert (size(model), model.cut) == (before, None)


def test_a_second_cut_is_refused(model, refused):
    left = size(cut(model, SOME["heads"]))
    with refused("was cut before", "load it anew"):
        cut(model, SOME["columns"])
    assert size(model) == left


def test_a_model_that_writes_is_refused(refused):
    with refused("architecture 'bart'", "bert, roberta, mpnet"):
        cut(ap.load_model(TINY, made_up(), device="cpu"), SOME["heads"])
