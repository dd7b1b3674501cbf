"""A cut model goes to a folder and comes back as it was."""

import pytest
import torch

import adapter_pruning as ap
from adapter_pruning.pruned_models import FILE
from adapter_pruning.recipes import Plan
from adapter_pruning.training import trainable

FIXED = ap.RECIPES["fixed"]


def cut_model(folder, task, heads=5):
    """A cut model with LoRA whose numbers are all its own."""
    model = ap.load_model(str(folder), task, device="cpu", seed=3)
    made = Plan(ap.random_mask(ap.units_of(model, ("heads",)), heads, seed=1), (8, 4))
    ap.prune_lora(model, FIXED, made, seed=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_outputs_and_everything_else_come_back_bit_for_bit(folder, rotten, inputs, tmp_path):
    model = cut_model(folder, rotten)
    known = {n: v for n, v in inputs.items() if n != "token_type_ids"}
    ap.save_pruned(model, tmp_path)
    again = ap.load_pruned(tmp_path, device="cpu").eval()
    assert torch.equal(again(**known), model(**known))
    assert again.cut == model.cut
    assert again.adapter_config == model.adapter_config
    assert (again.name, again.revision) == (model.name, model.revision)
    assert list(trainable(again)) == list(trainable(model))


def test_a_model_without_adapters_or_cuts_and_one_with_columns_gone_come_back(
    tiny_bert, inputs, tmp_path
):
    whole = tiny_bert().eval()
    thin = ap.cut(tiny_bert().eval(), ap.random_mask(ap.units_of(whole), 100, seed=2))
    for name, model in {"whole": whole, "thin": thin}.items():
        ap.save_pruned(model, tmp_path / name)
        again = ap.load_pruned(tmp_path / name, device="cpu").eval()
        assert torch.equal(again(**inputs), model(**inputs))
        assert again.cut == model.cut


def test_a_layer_without_heads_comes_back_without_a_second_warning(
    tiny_bert, rotten, inputs, tmp_path, recwarn
):
    keep = ap.Mask({"1.heads": torch.zeros(4, dtype=torch.bool)})
    model = ap.cut(tiny_bert().eval(), keep)
    ap.save_pruned(model, tmp_path)
    recwarn.clear()
    assert torch.equal(ap.load_pruned(tmp_path, device="cpu").eval()(**inputs), model(**inputs))
    assert not [warning for warning in recwarn if "heads" in str(warning.message)]


def test_it_trains_on_as_the_saved_one_would(tiny_bert, tiny_folder, rotten, tmp_path):
    config = ap.TrainConfig(epochs=1, batch_size=32, max_length=16, precision="fp32")
    model = cut_model(tiny_folder, rotten)
    ap.save_pruned(model, tmp_path)
    again = ap.load_pruned(tmp_path, device="cpu")
    for each in (model, again):
        ap.fit(each, rotten, config, progress=False)
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name


def test_transformers_does_not_take_the_folder_for_a_whole_model(tiny_folder, rotten, tmp_path):
    from transformers import AutoModel

    ap.save_pruned(cut_model(tiny_folder, rotten), tmp_path)
    with pytest.raises(OSError):
        AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "torn", "config", "another"])
def test_a_damaged_folder_is_refused_and_named(
    tiny_folder, tiny_bert, rotten, tmp_path, refused, damage
):
    ap.save_pruned(cut_model(tiny_folder, rotten), tmp_path / "a")
    ap.save_pruned(tiny_bert(), tmp_path / "b")
    file = tmp_path / "a" / FILE
    if damage == "absent":
        file.unlink()
    elif damage == "torn":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "config":
        (tmp_path / "a" / "config.json").unlink()
    else:  # weights of a model of another shape
        config = tmp_path / "a" / "config.json"
        config.write_text(
            config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1')
        )
    with refused(str(tmp_path / "a")):
        ap.load_pruned(tmp_path / "a")


def test_adapters_alone_are_not_saved_of_a_cut_or_trained_encoder(
    tiny_folder, tiny_bert, rotten, tmp_path, refused
):
    for model in (cut_model(tiny_folder, rotten), ap.add_lora(tiny_bert(), FIXED, 4)):
        with refused("save_pruned"):
            ap.save_adapters(model, tmp_path / "x.safetensors")
        assert not list(tmp_path.iterdir())
