"""Models that write: the parts of BART, every kind of adapter in both stacks, and the texts."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import KINDS, logits, randomise
from small_xsum import made_up
from tiny_models import HIDDEN, INNER, LAYERS, save_tiny_bart
from torch import nn
from transformers import BartForConditionalGeneration

import adapter_pruning as ap
from adapter_pruning.adapters import adapter_parameters
from adapter_pruning.at_init import prune_at_init
from adapter_pruning.batches import collate
from adapter_pruning.seq2seq import TINY
from adapter_pruning.training import trainable

QUICK = ap.TrainConfig(
    epochs=1, batch_size=4, evaluations_per_epoch=1, max_length=16, precision="fp32"
)


@pytest.fixture(scope="session")
def bart_folder(tmp_path_factory, tokenizer):
    """A folder with a randomly initialised BART: 2 + 2 layers, 4 heads, width 32."""
    folder = tmp_path_factory.mktemp("tiny-bart")
    save_tiny_bart(folder, tokenizer)
    return folder


@pytest.fixture(scope="session")
def loaded(bart_folder):
    return ap.load_model(str(bart_folder), made_up(), device="cpu").eval()


@pytest.fixture
def model(loaded):
    return copy.deepcopy(loaded)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def config(request):
    return request.param


@pytest.fixture
def adapted(model, config):
    randomise(ap.attach(model, config))
    return model


@pytest.fixture(scope="session")
def rows(tokenizer):
    """Two documents with their summaries; in a batch both of the second are padded."""
    return [made_up().encode(tokenizer, 32)["test"][0], made_up().encode(tokenizer, 32)["train"][0]]


@pytest.fixture
def batch(rows, tokenizer):
    rows = [{**rows[0], "target_ids": rows[0]["target_ids"]}, rows[1]]
    made = collate(rows, tokenizer.pad_token_id, torch.device("cpu"))
    assert (made["target_ids"][1] == tokenizer.pad_token_id).any()
    return made


# The model


def test_every_named_part_is_the_right_kind_of_module_in_both_stacks(model):
    square, within = (HIDDEN, HIDDEN), dict.fromkeys(("query", "key", "value"), (HIDDEN, HIDDEN))
    within |= {"attention_output": square, "attention_end": square}
    within |= {"ffn_in": (INNER, HIDDEN), "ffn_out": (HIDDEN, INNER), "ffn_end": (HIDDEN, INNER)}
    layers = list(model.layers())
    stacks = model.encoder.get_encoder().layers, model.encoder.get_decoder().layers
    assert [layer.module for layer in layers] == [module for stack in stacks for module in stack]
    assert len(layers) == 2 * LAYERS
    for layer in layers:
        for part, shape in within.items():
            module = layer.part(part)
            assert type(module) is nn.Linear, part
            assert tuple(module.weight.shape) == shape, part
        assert type(layer.part("ffn_norm")) is nn.LayerNorm


@pytest.mark.parametrize(
    ("end", "norm"), [("attention_end", "self_attn_layer_norm"), ("ffn_end", "final_layer_norm")]
)
def test_each_end_comes_right_before_its_residual_connection(model, batch, end, norm):
    for layer in model.layers():
        seen = {}
        parts = {"end": getattr(model.architecture, end), "norm": norm}
        parts["into"] = "self_attn.q_proj" if end == "attention_end" else "fc1"
        for name, part in parts.items():
            layer.module.get_submodule(part).register_forward_hook(
                lambda module, args, out, name=name, seen=seen: seen.update({name: (args[0], out)})
            )
        logits(model, batch)
        assert torch.equal(seen["norm"][0], seen["into"][0] + seen["end"][1])


def test_a_folder_loads_with_the_weights_that_are_in_it(model, bart_folder):
    stored, state = load_file(bart_folder / "model.safetensors"), model.encoder.state_dict()
    assert stored.keys() <= state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert model.revision.startswith("sha256:")


def test_a_folder_of_the_bare_transformer_loads_as_well(bart_folder, tokenizer, tmp_path, model):
    # facebook/bart-base keeps its weights without the part that writes.
    whole = BartForConditionalGeneration.from_pretrained(bart_folder)
    whole.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bare = ap.load_model(str(tmp_path), made_up(), device="cpu")
    state = bare.encoder.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in model.encoder.state_dict().items())


def test_the_output_weights_are_the_token_embeddings_and_nothing_is_a_head(model):
    network = model.encoder
    assert network.lm_head.weight is network.model.shared.weight
    assert not list(model.head.parameters())
    assert set(trainable(model)) == {f"encoder.{name}" for name, _ in network.named_parameters()}


def test_the_loss_is_that_of_transformers_for_one_summary(model, rows, tokenizer):
    # Its own shift by one place, and its own mean over tokens.
    task = made_up()
    for row in rows:
        inputs = collate([row], tokenizer.pad_token_id, torch.device("cpu"))
        labels = torch.tensor([row["labels"]])
        source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        expected = model.encoder(**source, labels=labels).loss
        torch.testing.assert_close(task.loss(model(**inputs), labels), expected)


def test_a_given_dropout_is_every_dropout_of_the_network(bart_folder):
    model = ap.load_model(str(bart_folder), made_up(), device="cpu", dropout=0.25)
    layer = next(model.layers()).module
    assert (model.dropout_rate, layer.dropout, layer.activation_dropout) == (0.25, 0.25, 0.25)
    assert layer.self_attn.dropout == 0.25


# Every kind of adapter


def test_adapters_hang_in_every_layer_of_both_stacks(model, config):
    ap.attach(model, config)
    assert list(model.adapters) == ["0", "1", "2", "3"]
    assert all(len(placed) for placed in model.adapters.values())


def test_detach_restores_the_network_bit_for_bit(model, config, batch):
    before, state = logits(model, batch), copy.deepcopy(model.state_dict())
    modules = {name: (vars(m).keys(), m.forward.__func__) for name, m in model.named_modules()}
    randomise(ap.attach(model, config))
    assert list(model.encoder.state_dict()) == [n.removeprefix("encoder.") for n in state]
    assert not torch.equal(logits(model, batch), before)
    ap.detach(model)
    assert torch.equal(logits(model, batch), before)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    after = {name: (vars(m).keys(), m.forward.__func__) for name, m in model.named_modules()}
    assert after == modules
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert all(p.requires_grad for p in model.parameters())


def test_saved_and_loaded_adapters_give_bit_equal_outputs(
    adapted, bart_folder, config, batch, tmp_path
):
    ap.save_adapters(adapted, tmp_path / "adapters.safetensors")
    other = ap.load_model(str(bart_folder), made_up(), device="cpu", seed=9).eval()
    ap.load_adapters(other, tmp_path / "adapters.safetensors")
    assert other.adapter_config == config
    assert torch.equal(logits(other, batch), logits(adapted, batch))


def test_a_copy_is_on_its_own(loaded, model, config, batch):
    before = logits(ap.attach(model, config), batch)
    twin = copy.deepcopy(model)
    randomise(twin)
    assert not torch.equal(logits(twin, batch), before)
    assert torch.equal(logits(model, batch), before)
    assert torch.equal(logits(ap.detach(twin), batch), logits(loaded, batch))
    assert torch.equal(logits(model, batch), before)


def test_every_parameter_has_a_say(adapted, batch):
    adapted(**batch)[..., :50].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter_parameters(adapted).values())


def test_padding_changes_nothing(adapted, batch, rows, tokenizer):
    alone = collate([rows[1]], tokenizer.pad_token_id, torch.device("cpu"))
    length = alone["target_ids"].shape[1]
    together = logits(adapted, batch)[1:, :length]
    torch.testing.assert_close(logits(adapted, alone), together, rtol=1e-4, atol=1e-4)


def test_a_token_is_blind_to_those_after_it_and_not_to_those_before(adapted, batch):
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["target_ids"][:, 2] = 1000
    before, after = logits(adapted, batch), logits(adapted, other)
    # The token in place 2 is read, shifted, from place 3 on.
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:], after[:, 3:]).all(-1).any()


def test_what_is_written_is_the_same_with_and_without_a_cache(adapted, batch):
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    how = {"max_length": 10, "num_beams": 3, "do_sample": False}
    with torch.inference_mode():
        ids = [
            adapted.encoder.generate(
                **source, **how, use_cache=cached, return_dict_in_generate=True
            )
            for cached in (True, False)
        ]
        texts = [adapted.write(**source, **how, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*(found.sequences for found in ids))
    assert ids[0].past_key_values is not None
    assert ids[1].past_key_values is None
    assert texts[0] == texts[1]


def test_attention_of_a_gpu_gives_the_same_logits_and_texts(adapted, batch, rows):
    # On a GPU the mask is boolean, or none at all where nothing is padded.
    other, model = copy.deepcopy(adapted), adapted
    other.encoder.set_attn_implementation("sdpa")
    alone = collate(rows[:1], 0, torch.device("cpu"))
    for inputs in (batch, alone):
        torch.testing.assert_close(
            logits(other, inputs), logits(model, inputs), rtol=1e-3, atol=1e-3
        )
        source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        how = {"max_length": 8, "num_beams": 2, "do_sample": False}
        assert other.write(**source, **how) == model.write(**source, **how)


def test_bfloat16_gives_about_the_same_logits_and_a_loss(model, config, batch):
    ap.attach(model, config)
    exact = logits(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = logits(model, batch)
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.05 * exact.abs().max().item())
    losses = [
        ap.evaluate(model, made_up(), replace(QUICK, precision=precision))["loss"]
        for precision in ("bf16", "fp32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_training_moves_adapters_and_nothing_else(model, config):
    ap.attach(model, config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ap.fit(model, made_up(), QUICK, progress=False)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(trainable(model)) == set(adapter_parameters(model))


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_matrices_are_pruned_at_initialisation_by_derivatives(model, config, criterion):
    parameters = adapter_parameters(ap.attach(model, config))
    if not any(name.endswith("weight") for name in parameters):
        pytest.skip("a prefix has no matrices")
    sample = {"rows": 4, "batch_size": 2, "max_length": 16}
    mask = prune_at_init(model, made_up(), criterion, 0.5, **sample)
    assert mask.kept == mask.total // 2
    stacks = {int(name.split(".")[1]) < LAYERS for name, kept in mask.items() if kept.any()}
    assert stacks == {True, False}


def test_merged_low_ranks_give_the_same_outputs(model, batch):
    randomise(ap.attach(model, KINDS["LoRA"]))
    before = logits(model, batch)
    torch.testing.assert_close(logits(ap.merge(model), batch), before, rtol=1e-4, atol=1e-4)


# What is written


def test_greedy_writing_takes_the_likeliest_token_each_time(model, batch, tokenizer):
    ap.attach(model, KINDS["Prefix"])
    randomise(model)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    begun = torch.full((2, 1), tokenizer.sep_token_id)
    for _ in range(6):
        with torch.no_grad():
            out = model.encoder(**source, decoder_input_ids=begun, use_cache=False)
        begun = torch.cat([begun, out.logits[:, -1:].argmax(-1)], dim=1)
    assert not (begun[:, 1:] == tokenizer.sep_token_id).any()
    # At the length limit an end is forced, in place of the eighth token.
    texts = model.write(**source, max_length=8, num_beams=1, do_sample=False)
    assert texts == tokenizer.batch_decode(begun, skip_special_tokens=True)


def test_more_beams_find_likelier_summaries(model, batch):
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    how = {"min_length": 8, "max_length": 8, "do_sample": False, "length_penalty": 0.0}
    likelihood = []
    for beams in (1, 6):
        options = how if beams > 1 else {k: v for k, v in how.items() if k != "length_penalty"}
        ids = model.encoder.generate(**source, **options, num_beams=beams)
        out = logits(model, {**source, "target_ids": ids[:, 1:-1]}).log_softmax(-1)
        likelihood.append(out.gather(2, ids[:, 1:-1, None]).sum())
    assert likelihood[1] > likelihood[0]


def test_a_model_learns_its_training_summaries(bart_folder):
    task, config = made_up(), QUICK
    model = ap.load_model(str(bart_folder), task, device="cpu", dropout=0.0)
    before = ap.evaluate(model, task, config, "train")["loss"]
    long = replace(config, epochs=15, learning_rate=0.005)
    progress = ap.fit(model, task, long, progress=False)
    assert progress.step > 5
    assert ap.evaluate(model, task, config, "train")["loss"] < before / 2


# The small random model


def test_the_seed_fixes_the_random_model_and_its_revision():
    first, same, other = (ap.load_model(TINY, made_up(), seed=s, device="cpu") for s in (3, 3, 4))
    state = first.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in same.state_dict().items())
    assert not torch.equal(other.encoder.model.shared.weight, first.encoder.model.shared.weight)
    assert first.revision == same.revision != other.revision
    assert first.revision.startswith("random:")


def test_the_random_model_is_small_and_has_the_tokenizer_of_minilm(tokenizer):
    model = ap.load_model(TINY, made_up(), device="cpu")
    assert (len(list(model.layers())), model.width) == (4, 64)
    assert model.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert sum(p.numel() for p in model.parameters()) < 3e6


def test_loading_a_random_model_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ap.load_model(TINY, made_up(), seed=5, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_adapters_of_one_random_model_are_refused_by_another(tmp_path, refused):
    model = ap.attach(ap.load_model(TINY, made_up(), device="cpu"), KINDS["LoRA"])
    ap.save_adapters(model, tmp_path / "file")
    other = ap.load_model(TINY, made_up(), seed=1, device="cpu")
    with refused(model.revision, other.revision):
        ap.load_adapters(other, tmp_path / "file")


# Records and tickets


def test_a_trial_of_the_random_model_is_recorded_as_random_and_run_once(tmp_path):
    store, task = ap.RecordStore(tmp_path), made_up()

    def trial(**how):
        model = ap.load_model(TINY, task, seed=2, device="cpu")
        ap.attach(model, KINDS["Houlsby"])
        return ap.run_once(
            store, model, task, QUICK, seed=2, method="Houlsby", progress=False, **how
        )

    record = trial()
    assert record == trial()
    assert len(store.all()) == 1
    assert record["model_revision"].startswith("random:")
    assert (record["pooling"], record["metric"]) == ("none", "rougeL")
    assert record["parameters_stored"] == record["parameters_trained"]
    assert record["majority"] == task.majority
    assert set(record["metrics"]) == {"rougeL", "rouge1", "rouge2", "loss"}


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A store with two rounds over a random model, and the second round."""
    store = ap.RecordStore(tmp_path_factory.mktemp("search"))
    model = ap.attach(ap.load_model(TINY, made_up(), seed=1, device="cpu"), ap.LoRA(rank=2))
    rounds = ap.find_tickets(
        model, made_up(), rounds=1, config=QUICK, seed=1, store=store, progress=False
    )
    return store, list(rounds)[-1], model


def test_a_ticket_of_a_model_that_writes_is_found_and_loaded_again(search, batch):
    store, found, model = search
    assert found.density == pytest.approx(0.8, abs=0.01)
    loaded = ap.load_ticket(store, found.record, made_up())
    assert torch.equal(logits(loaded.eval(), batch), logits(model.eval(), batch))


def test_a_ticket_is_refused_where_the_model_is_another_by_now(search, refused):
    # With another seed `tiny-bart` is another model, on which the ticket means nothing.
    store, found, _ = search
    with refused("'tiny-bart'", found.record["model_revision"], "random:"):
        ap.load_ticket(store, found.record | {"seed": 7}, made_up())


def test_a_ticket_of_a_model_that_writes_is_refused_for_a_task_with_classes(
    search, rotten, refused
):
    store, found, _ = search
    with refused("'xsum'", "0 output(s)", "'rotten_tomatoes'"):
        ap.load_ticket(store, found.record, rotten)


# Bad input


@pytest.mark.parametrize("name", ["minilm", "folder"])
def test_an_encoder_alone_is_refused_for_summarization(name, tiny_folder, refused):
    with refused("is a 'bert'", "needs an encoder-decoder: bart"):
        ap.load_model(str(tiny_folder) if name == "folder" else name, made_up())


@pytest.mark.parametrize("name", [TINY, "folder"])
def test_an_encoder_decoder_is_refused_for_a_task_with_classes(name, bart_folder, rotten, refused):
    with refused("is a 'bart'", "needs an encoder: bert, roberta, mpnet"):
        ap.load_model(str(bart_folder) if name == "folder" else name, rotten)


def test_a_model_of_another_kind_is_refused_before_it_is_trained(model, tiny_bert, rotten, refused):
    with refused("writes text", "'rotten_tomatoes'", "load a model for this task"):
        ap.fit(model, rotten, QUICK, progress=False)
    encoder = tiny_bert()
    with refused("reads text", "'xsum'", "load a model for this task"):
        ap.fit(encoder, made_up(), QUICK, progress=False)


def test_a_pooling_is_refused_where_nothing_is_pooled(bart_folder, refused):
    with refused("pooling of a model that writes 'mean'", "auto, none"):
        ap.load_model(str(bart_folder), made_up(), pooling="mean")


def test_a_dropout_out_of_range_is_refused(bart_folder, refused):
    with refused("dropout is 1.5"):
        ap.load_model(str(bart_folder), made_up(), dropout=1.5)


def test_damaged_weights_are_refused(bart_folder, tokenizer, tmp_path, refused):
    save_tiny_bart(tmp_path, tokenizer)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with refused(str(tmp_path), "missing or damaged"):
        ap.load_model(str(tmp_path), made_up(), device="cpu")
