"""What a model is loaded with: its pooling, head, device and dropout."""

import pytest
import torch
from torch import nn
from transformers import AutoModel

import adapter_pruning as ap
from adapter_pruning.backbones import init_head, pick_device

HIDDEN = 32  # of the tiny BERT


# Pooling and head


def test_each_pooling_is_what_it_says(tiny_bert, inputs):
    model = tiny_bert().eval()
    out = model.encoder(**inputs)
    words = inputs["attention_mask"][1].sum()  # the second row is padded
    assert words < inputs["input_ids"].shape[1]
    expected = {
        "pooler": torch.tanh(model.encoder.pooler.dense(out.last_hidden_state[:, 0]))[1],
        "mean": out.last_hidden_state[1, :words].mean(0),
        "cls": out.last_hidden_state[1, 0],
    }
    for pooling, vector in expected.items():
        model.pooling = pooling
        logits = model(**inputs)
        assert logits.shape == (2, 2)
        torch.testing.assert_close(logits[1], model.head(vector))


def test_the_pooling_that_is_asked_for_is_taken(tiny_bert):
    assert [tiny_bert(pooling=p).pooling for p in ("mean", "cls")] == ["mean", "cls"]


def test_the_head_is_as_wide_as_the_task_needs(tiny_bert, rotten):
    assert tiny_bert().head.out_features == rotten.outputs == 2


def test_the_head_is_of_its_seed_alone(tiny_bert):
    torch.manual_seed(1)
    first = tiny_bert(seed=3).head
    torch.manual_seed(2)
    same, other = tiny_bert(seed=3).head, tiny_bert(seed=4).head
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert not first.bias.any()


def test_the_head_is_drawn_with_a_standard_deviation_of_002(minilm):
    model = minilm()
    model.head = nn.Linear(384, 100)
    init_head(model, seed=0)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.head.weight.mean().item() == pytest.approx(0, abs=5e-4)


def test_the_head_is_drawn_on_the_cpu_wherever_the_model_is(tiny_bert):
    # The CPU's generator gives the same numbers to a model on any device.
    generator = torch.Generator("cpu").manual_seed(7)
    expected = torch.empty(2, HIDDEN).normal_(0, 0.02, generator=generator)
    assert torch.equal(tiny_bert(seed=7).head.weight, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_head_is_the_same_on_a_gpu(tiny_bert):
    on_gpu = tiny_bert(seed=7, device="cuda")
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.head.weight.cpu(), tiny_bert(seed=7).head.weight)


def test_an_unknown_pooling_is_answered_with_the_known_ones(tiny_bert, refused):
    with refused("unknown pooling 'max'", "pooler, mean, cls"):
        tiny_bert(pooling="max")


def test_a_pooler_that_the_head_does_not_read_does_not_train(tiny_bert):
    def frozen(model):
        return {name for name, p in model.named_parameters() if not p.requires_grad}

    pooler = {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}
    assert frozen(tiny_bert(pooling="mean")) == pooler
    assert frozen(tiny_bert(pooling="pooler")) == set()
    model = ap.detach(ap.attach(tiny_bert(pooling="mean"), ap.Houlsby(bottleneck=2)))
    assert frozen(model) == pooler


# Device and dropout


def test_an_unknown_device_is_answered_with_the_known_ones(refused):
    with refused("unknown device 'tpu'", "auto, cpu, cuda"):
        pick_device("tpu")


def test_a_gpu_that_is_not_there_is_said_before_anything_is_loaded(monkeypatch, tiny_bert, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(AutoModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("loaded"))
    with refused("'cuda'", "use 'auto' or 'cpu'"):
        tiny_bert(device="cuda")


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for present, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert pick_device("auto").type == kind


def test_dropout_is_the_encoders_own_unless_it_is_given(tiny_bert):
    assert _rates(tiny_bert()) == {0.1}
    assert _rates(tiny_bert(dropout=0.0)) == {0.0}


def _rates(model):
    return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_out_of_range_is_refused(tiny_bert, refused, dropout):
    with refused("dropout is", str(dropout)):
        tiny_bert(dropout=dropout)
