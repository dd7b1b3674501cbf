"""Fusion: trained adapters come in as they were saved, and only their mixture trains."""

import pytest
import torch
from quick_training import QUICKER as QUICK
from small_adapters import KINDS, logits, randomise

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.training import trainable
from adapter_pruning.trials import identity

PFEIFFER = KINDS["Pfeiffer"]


@pytest.fixture
def saved(tiny_bert, tmp_path):
    """saved(name, config): a file of adapters with values as after training."""

    def saved(name, config=PFEIFFER, seed=1):
        model = ap.attach(tiny_bert(), config, seed=seed)
        randomise(model)
        with torch.no_grad():
            for parameter in adapter_parameters(model).values():
                parameter.mul_(seed)
        ap.save_adapters(model, tmp_path / name)
        return tmp_path / name

    return saved


def test_the_adapters_come_from_the_files_in_their_order_and_stay_frozen(
    base, tiny_bert, rotten, saved
):
    files = [saved("a", seed=1), saved("b", seed=2)]
    ap.fuse(base, files)
    single = [ap.load_adapters(tiny_bert(), file) for file in files]
    for _ in range(2):
        for layer, placed in base.adapters.items():
            for fused, alone in zip(placed["fusion"].fused, single, strict=True):
                for name, tensor in fused.named_parameters():
                    assert torch.equal(tensor, alone.adapters[layer]["ffn"].get_parameter(name))
        ap.fit(base, rotten, QUICK, progress=False)  # and once more


def test_only_the_mixture_and_the_head_train(base, saved):
    ap.fuse(base, [saved("a"), saved("b", seed=2)])
    names = {name.split(".", 3)[3] for name in adapter_parameters(base)}
    assert names == {"query.weight", "query.bias", "key.weight", "value.weight"}
    assert set(trainable(base)) == {*adapter_parameters(base), "head.weight", "head.bias"}


def test_the_fusion_of_one_adapter_with_itself_is_that_adapter(base, tiny_bert, saved, inputs):
    file = saved("a")
    alone = ap.load_adapters(tiny_bert().eval(), file)
    ap.fuse(base, [file, file])
    base.head.load_state_dict(alone.head.state_dict())
    torch.testing.assert_close(logits(base, inputs), logits(alone, inputs))


def test_other_adapters_in_the_files_are_another_model(base, tiny_bert, rotten, saved):
    one = ap.fuse(base, [saved("a"), saved("b", seed=2)])
    other = ap.fuse(tiny_bert(), [saved("c"), saved("d", seed=3)])
    assert identity(one, rotten, QUICK, 0) != identity(other, rotten, QUICK, 0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (KINDS["Houlsby"], ["holds Houlsby adapters", "Pfeiffer"]),
        (ap.Pfeiffer(bottleneck=6, activation="gelu"), ["has other adapters than", "bottleneck=6"]),
    ],
)
def test_files_that_do_not_go_together_are_refused(base, saved, refused, config, said):
    files = [saved("a"), saved("b", config)]
    with refused(*said):
        ap.fuse(base, files)
    assert base.adapter_config is None


def test_one_adapter_is_no_fusion(base, saved, refused):
    with refused("Fusion: adapters is 1"):
        ap.fuse(base, [saved("a")])


def test_a_round_of_a_fusion_is_not_loaded_without_its_adapters(
    base, rotten, saved, refused, tmp_path
):
    ap.fuse(base, [saved("a"), saved("b", seed=2)])
    store = ap.RecordStore(tmp_path / "records")
    options = {"rounds": 0, "config": QUICK, "store": store, "progress": False}
    (found,) = ap.find_tickets(base, rotten, **options)
    with refused("fusion", "does not hold the adapters"):
        ap.load_ticket(store, found.record, rotten)
