"""Gates: what they do to a head or a column, to which example, and for how long."""

import pytest
import torch
from small_adapters import KINDS
from small_xsum import made_up
from some_masks import mask_of
from strong_models import ATTENTIONS, hidden

import adapter_pruning as ap
from adapter_pruning.gates import gated, heads_of, hooked, units_of
from adapter_pruning.papers import compared_gates
from adapter_pruning.seq2seq import TINY
from adapter_pruning.surgery import cut

CLOSE = {"rtol": 0, "atol": 1e-5}
SIZES = {"0.heads": 4, "0.ffn": 64, "1.heads": 4, "1.ffn": 64}


@pytest.fixture
def model(strong_model):
    return strong_model()


def drawn(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# Units


def test_every_layer_has_its_heads_and_its_columns(model):
    whole = units_of(model)
    assert {name: tuple(kept.shape) for name, kept in whole.items()} == {
        name: (size,) for name, size in SIZES.items()
    }
    assert whole.density == 1
    assert list(units_of(model, ("heads",))) == ["0.heads", "1.heads"]
    assert list(units_of(model, ("ffn",))) == ["0.ffn", "1.ffn"]


def test_a_layer_that_has_lost_all_of_a_kind_has_no_entry(model):
    cut(model, mask_of(**{"0.ffn": [0] * 64, "1.heads": [1, 0, 1, 0]}))
    assert {n: len(kept) for n, kept in units_of(model).items()} == {
        "0.heads": 4,
        "1.heads": 2,
        "1.ffn": 64,
    }


# What a gate does


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("batch", [(), (2,)], ids=["of all", "of each example"])
def test_gates_of_1_change_nothing_bit_for_bit(model, inputs, batch, attention):
    if model.encoder.config.model_type != "mpnet":  # which has only its own
        model.encoder.set_attn_implementation(attention)
    before = hidden(model, inputs)
    with gated(model, {name: torch.ones(*batch, size) for name, size in SIZES.items()}):
        assert torch.equal(hidden(model, inputs), before)


@pytest.mark.parametrize("name", SIZES)
def test_a_gate_scales_the_columns_of_the_matrix_that_reads_the_unit(model, inputs, name):
    gate, before = drawn(SIZES[name]), hidden(model, inputs)
    with gated(model, {name: gate}):
        found = hidden(model, inputs)
    layer, _, kind = name.partition(".")
    reader = list(model.layers())[int(layer)].part(
        {"heads": "attention_output", "ffn": "ffn_out"}[kind]
    )
    with torch.no_grad():
        reader.weight *= gate.repeat_interleave(reader.in_features // len(gate))
    torch.testing.assert_close(found, hidden(model, inputs), **CLOSE)
    assert (found - before).abs().max() > 0.1


@pytest.mark.parametrize("name", SIZES)
def test_a_gate_of_an_example_acts_on_that_example_alone(model, inputs, name):
    before, gate = hidden(model, inputs), drawn(SIZES[name])
    with gated(model, {name: gate}):
        both = hidden(model, inputs)
    with gated(model, {name: torch.stack([torch.ones_like(gate), gate])}):
        second = hidden(model, inputs)
    assert torch.equal(second[0], before[0])
    assert torch.equal(second[1], both[1])
    assert not torch.equal(second[1], before[1])


@pytest.mark.parametrize("batch", [(), (2,)], ids=["of all", "of each example"])
def test_a_gate_gets_a_gradient(model, inputs, batch):
    gates = {name: torch.ones(*batch, size, requires_grad=True) for name, size in SIZES.items()}
    with gated(model, gates):
        model(**inputs).square().sum().backward()
    assert all(gate.grad.any() for gate in gates.values())


def test_a_mask_is_a_gate_of_0_and_1_also_where_heads_were_cut(model, inputs):
    cut(model, mask_of(**{"0.heads": [0, 1, 1, 1]}))
    mask = mask_of(**{"0.heads": [1, 0, 1]})
    with gated(model, mask):
        found = hidden(model, inputs)
    with gated(model, {"0.heads": torch.tensor([1.0, 0.0, 1.0])}):
        assert torch.equal(hidden(model, inputs), found)
    assert not torch.equal(hidden(model, inputs), found)


@pytest.mark.parametrize("kind", ["LoRA", "Prefix"])
def test_a_gate_at_0_silences_a_head_with_what_an_adapter_adds_to_it(model, inputs, kind):
    ap.attach(model, KINDS[kind])
    with gated(model, {"1.heads": torch.zeros(4)}):
        silent = hidden(model, inputs)
    reader = list(model.layers())[1].part("attention_output")
    if kind == "LoRA":  # beside the output projection too: it reads the silenced values
        model.adapters["1"]["attention_output"].down.weight.data.zero_()
    with torch.no_grad():
        reader.weight.zero_()
    torch.testing.assert_close(hidden(model, inputs), silent, **CLOSE)


def test_transformers_itself_ignores_a_head_mask_without_a_word(model, inputs):
    # Why the gates are hooks. Where this fails, transformers has its head mask back.
    with torch.no_grad():
        masked = model.encoder(**inputs, head_mask=torch.zeros(2, 4)).last_hidden_state
    assert torch.equal(masked, hidden(model, inputs))


def test_gate_gradients_are_those_of_the_head_mask_that_transformers_had():
    # As `make oracle` found them: beside transformers 5 there is no room for 4.57.
    table = compared_gates()
    assert len(table) == 6
    assert (table["largest difference"].astype(float) < 1e-5).all()
    assert (table["largest gradient"].astype(float) > 1e-2).all()


# For how long


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_no_gate_is_left_after_the_block_however_it_ends(model, inputs, error):
    before = hidden(model, inputs)
    try:
        with gated(model, {name: torch.zeros(size) for name, size in SIZES.items()}):
            assert not torch.equal(hidden(model, inputs), before)
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert torch.equal(hidden(model, inputs), before)
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_a_function_sees_the_values_of_the_units_it_is_asked_about(model, inputs):
    seen = {}

    def look(name, values):
        seen[name] = tuple(values.shape)
        return values

    with hooked(model, look, ["0.heads", "1.ffn"]):
        hidden(model, inputs)
    batch, length = inputs["input_ids"].shape
    assert seen == {"0.heads": (batch, length, 4, 8), "1.ffn": (batch, length, 64, 1)}


# Refused


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"2.heads": torch.ones(4)}, ["gate has '2.heads'", "the model has not"]),
        ({"0.heads": torch.ones(4), "0.neurons": torch.ones(4)}, ["gate has '0.neurons'"]),
        ({"0.heads": torch.ones(3)}, ["'0.heads'", "(3,)", "(4,)"]),
        ({"1.ffn": torch.ones(2, 63)}, ["'1.ffn'", "(63,)", "(64,)"]),
        ({"0.heads": torch.ones(2, 1, 4)}, ["'0.heads'", "1, 4)", "(4,)"]),
        ({"0.heads": torch.tensor(0.5)}, ["'0.heads'", "()", "(4,)"]),
    ],
)
def test_gates_of_another_model_are_refused(model, refused, gates, said):
    with refused(*said), gated(model, gates):
        pass
    assert not [m for m in model.modules() if m._forward_pre_hooks]


def test_an_unknown_kind_of_unit_is_refused(model, refused):
    with refused("kind of unit 'neurons'", "heads, ffn"):
        units_of(model, ("heads", "neurons"))


def test_a_model_that_writes_is_refused(refused):
    model = ap.load_model(TINY, made_up(), device="cpu")
    with refused("architecture 'bart'", "bert, roberta, mpnet"):
        units_of(model)
    with refused("architecture 'bart'"), gated(model, {"0.heads": torch.ones(4)}):
        pass


# The importance map


def test_the_heads_of_all_layers_are_one_table():
    first, second = drawn(4), drawn(4) + 1
    table = heads_of({"0.heads": first, "0.ffn": drawn(64), "1.heads": second})
    assert torch.equal(table, torch.stack([first, second]))


@pytest.mark.parametrize(
    "scores",
    [{}, {"0.ffn": torch.ones(64)}, {"0.heads": torch.ones(4), "1.heads": torch.ones(3)}],
    ids=["nothing", "no heads", "layers that differ"],
)
def test_no_table_without_the_same_heads_in_every_layer(refused, scores):
    with refused("same number of heads in every layer"):
        heads_of(scores)
