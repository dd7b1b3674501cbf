"""What a model costs: exact where a count by hand is, and no test depends on the clock."""

import pytest
import torch
from small_adapters import KINDS
from tiny_models import HIDDEN, INNER, LAYERS
from torch import nn

import adapter_pruning as ap
from adapter_pruning import efficiency

ROW = 2**18  # float32 numbers in a MiB


class Hungry(nn.Module):
    """A model whose forward pass is the test's own."""

    name, device = "hungry", torch.device("cpu")

    def __init__(self, forward):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(ROW))
        self.run = forward

    def forward(self, **inputs):
        return self.run(self, **inputs)


def halved(model, kind):
    """The model without the second half of its heads or of its feed-forward columns."""
    whole = ap.units_of(model, (kind,))
    return ap.cut(model, ap.Mask({n: torch.arange(len(t)) < len(t) // 2 for n, t in whole.items()}))


def by_hand(inputs, heads=1.0, columns=1.0):
    """A multiplication and an addition for each pair of numbers that meet in the tiny BERT."""
    batch, length = inputs["input_ids"].shape
    projections, scores = 4 * HIDDEN * HIDDEN, 2 * length * HIDDEN
    token = heads * (projections + scores) + columns * 2 * HIDDEN * INNER
    pooler, head = HIDDEN * HIDDEN, HIDDEN * 2
    return 2 * batch * (LAYERS * length * token + pooler + head)


def test_parameters_are_those_that_train_and_all():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)

    assert efficiency.parameters(model) == {"total": 8, "trainable": 6}


def test_weights_are_counted_in_their_own_precision_with_buffers_and_once():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5), nn.Linear(3, 5).bfloat16())
    model[1].weight = model[0].weight
    model.register_buffer("places", torch.arange(7))

    assert efficiency.weights_mib(model) * 2**20 == 4 * (15 + 5) + 2 * (15 + 5) + 8 * 7


def test_a_file_takes_its_length_and_a_folder_that_of_all_below(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "model").write_bytes(bytes(2**20))
    (tmp_path / "a" / "b" / "head").write_bytes(bytes(2**19))

    assert efficiency.disk_mib(tmp_path / "a" / "model") == 1
    assert efficiency.disk_mib(tmp_path / "a") == 1.5


def test_what_is_not_on_disk_is_refused(tmp_path, refused):
    with refused("no file or folder", "absent"):
        efficiency.disk_mib(tmp_path / "absent")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_flops_are_those_counted_by_hand(base, inputs, attention):
    base.encoder.set_attn_implementation(attention)

    assert efficiency.flops(base, inputs) == by_hand(inputs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_half_of_the_heads_have_half_of_the_projections_and_scores(base, inputs, attention):
    base.encoder.set_attn_implementation(attention)

    assert efficiency.flops(halved(base, "heads"), inputs) == by_hand(inputs, heads=0.5)


def test_half_of_the_columns_have_half_of_the_feed_forward(base, inputs):
    assert efficiency.flops(halved(base, "ffn"), inputs) == by_hand(inputs, columns=0.5)


def test_an_adapter_adds_its_two_matrices(base, inputs):
    tokens = inputs["input_ids"].numel()
    ap.attach(base, ap.Houlsby(bottleneck=5))

    added = efficiency.flops(base, inputs) - by_hand(inputs)
    assert added == 2 * tokens * LAYERS * 2 * (2 * HIDDEN * 5)


def run_freely(model, x=None):
    """3 MiB at once: 1 and 2, then 1 and 1."""
    first = torch.zeros(ROW)
    second = torch.zeros(2 * ROW)
    del second
    return first + torch.zeros(ROW).sum()


def test_the_peak_is_the_weights_and_the_most_that_was_held_at_once():
    assert efficiency.inference_mib(Hungry(run_freely), {}) == 1 + 3


def test_the_peak_does_not_depend_on_what_was_measured_before():
    kept = []
    keeper = Hungry(lambda model: kept.append(torch.zeros(8 * ROW)))
    freer = Hungry(lambda model: (kept.clear(), run_freely(model)))

    assert efficiency.inference_mib(keeper, {}) == 1 + 8
    assert efficiency.inference_mib(freer, {}) == 1 + 3


def test_on_a_gpu_the_peak_grows_from_what_was_there(monkeypatch):
    class Peak:
        def __init__(self, device):
            Peak.reads = iter([100.0, 130.0])

        def read(self):
            runs.append("read")
            return next(self.reads)

    monkeypatch.setattr(efficiency, "PeakMemory", Peak)
    runs, model = [], Hungry(lambda model: runs.append("run"))
    model.device = torch.device("cuda")

    assert efficiency.inference_mib(model, {}) == 1 + 30
    assert runs == ["run", "read", "run", "read"]  # workspaces are there before the first reading


def test_training_holds_gradients_and_both_of_adams_moments(base, inputs):
    weights = efficiency.weights_mib(base)
    whole = efficiency.training_mib(base, inputs)
    base.encoder.requires_grad_(False)

    assert whole > 4 * weights
    assert weights < efficiency.training_mib(base, inputs) < 2 * weights


def test_adams_moments_are_there_while_activations_are():
    hungry = Hungry(lambda model, x: (model.weight * x).exp())
    weights, moments, product_and_result = 1, 2, 16

    peak = efficiency.training_mib(hungry, {"x": torch.ones(8, ROW)})
    assert peak >= weights + moments + product_and_result


def test_training_takes_more_than_inference_and_that_more_than_the_weights(adapted, inputs):
    weights, inference = efficiency.weights_mib(adapted), efficiency.inference_mib(adapted, inputs)

    assert weights < inference < efficiency.training_mib(adapted, inputs)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_measuring_leaves_model_and_random_numbers_as_they_were(base, inputs, kind, training):
    model = ap.attach(base, KINDS[kind]).train(training)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    drawn = torch.get_rng_state()

    efficiency.summary({"a": model}, inputs, {})

    assert model.training is training
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, p in model.named_parameters():
        assert p.grad is None
        assert torch.equal(p, before[name])


@pytest.mark.parametrize("measured", [efficiency.training_mib, efficiency.training_time])
def test_a_model_in_which_nothing_trains_is_refused(base, inputs, refused, measured):
    base.requires_grad_(False)
    models = {"a": base} if measured is efficiency.training_time else base
    with refused("nothing in model", base.name, "trains"):
        measured(models, inputs)


class Clock:
    """A clock that only goes on when a model runs, which takes as long as it is told."""

    def __init__(self, monkeypatch):
        self.now, self.turns = 0.0, []
        monkeypatch.setattr(efficiency, "timer", lambda: self.now)

    def model(self, name, *seconds):
        """A model of which each pass takes the next time; the first is not to count."""
        left = iter([1000.0, *seconds])

        def run(model):
            self.turns.append((name, model.training, torch.is_inference_mode_enabled()))
            self.now += next(left)
            return model.weight * 1

        return Hungry(run)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("measured", "training"), [(efficiency.latency, False), (efficiency.training_time, True)]
)
def test_models_take_turns_in_the_right_mode(clock, measured, training):
    models = {name: clock.model(name, 1, 1) for name in "abc"}
    measured(models, {}, rounds=2)

    assert clock.turns == [(name, training, not training) for name in "abcabcabc"]


@pytest.mark.parametrize("measured", [efficiency.latency, efficiency.training_time])
def test_times_are_medians_and_ratios_of_the_same_round(clock, measured):
    # The machine gets slower from round to round; side by side that does not matter.
    models = {"a": clock.model("a", 1, 2, 4, 8, 16), "b": clock.model("b", 0.5, 1, 2, 4, 10)}
    found = measured(models, {}, rounds=5)

    assert list(found.index) == ["a", "b"]
    assert list(found["seconds"]) == [4, 2]
    assert list(found["iqr"]) == [8 - 2, 4 - 1]
    assert list(found["ratio"]) == [1, 0.5]


def test_the_ratio_is_not_that_of_the_medians(clock):
    models = {"a": clock.model("a", 1, 2, 4), "b": clock.model("b", 3, 6, 2)}

    assert list(efficiency.latency(models, {}, rounds=3)["ratio"]) == [1, 3]


def test_a_summary_has_every_figure_of_every_model(base, tiny_bert, inputs, tmp_path):
    smaller = halved(tiny_bert(), "ffn")
    (tmp_path / "weights").write_bytes(bytes(2**20))
    models = {"whole": base, "cut": smaller}
    table = efficiency.summary(models, inputs, {"whole": tmp_path})

    assert list(table.index) == ["whole", "cut"]
    assert list(table.loc["whole", ["latency", "training_time"]]) == [1, 1]
    assert table.loc["whole", "disk_mib"] == 1
    assert torch.tensor(table.loc["cut", "disk_mib"]).isnan()
    for name, model in models.items():
        row = table.loc[name]
        assert row["parameters"] == row["trainable"] == sum(p.numel() for p in model.parameters())
        assert row["weights_mib"] == efficiency.weights_mib(model)
        assert row["inference_mib"] == efficiency.inference_mib(model, inputs)
        assert row["training_mib"] == efficiency.training_mib(model, inputs)
        assert row["gflops"] == efficiency.flops(model, inputs) / 1e9
    assert (table.loc["cut", "latency":] > 0).all()
