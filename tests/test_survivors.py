"""Which adapters survive: counted from the records, and compared with the authors' masks."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy import stats

from adapter_pruning import survivors
from adapter_pruning.papers import published

PLACES = list(itertools.product((0, 1), ("attention", "ffn")))
AUTHORS_TASKS = sorted(set(published("lottery_positions").task))


def search(*rounds: set[tuple[int, str]], task="glue/rte", seed=0) -> pd.DataFrame:
    """Records of an adapter search on two layers: which adapters each round has."""
    return pd.DataFrame(
        {
            "task": task,
            "seed": seed,
            "method": "adapter ticket",
            "detail.round": number,
            "detail.density_by_matrix": {
                f"adapters.{layer}.{position}.{matrix}": float((layer, position) in kept)
                for layer, position in PLACES
                for matrix in ("down.weight", "down.bias", "up.weight", "up.bias")
            },
        }
        for number, kept in enumerate(rounds)
    )


LOW, LOW_FFN, HIGH, HIGH_FFN = PLACES
EVERY = set(PLACES)


def lived(values: pd.DataFrame) -> dict:
    return values.set_index(["task", "seed", "layer", "position"]).rounds.to_dict()


def test_an_adapter_lived_until_the_last_round_that_had_it():
    found = lived(survivors.lifetimes(search(EVERY, EVERY, EVERY - {LOW}, {HIGH, HIGH_FFN})))
    assert found == {
        ("glue/rte", 0, *LOW): 1,
        ("glue/rte", 0, *LOW_FFN): 2,
        ("glue/rte", 0, *HIGH): 3,
        ("glue/rte", 0, *HIGH_FFN): 3,
    }


def test_lifetimes_do_not_depend_on_the_order_or_the_labels_of_rows():
    rounds = search(EVERY, EVERY - {LOW}, {HIGH}, {HIGH})
    shuffled = rounds.sample(frac=1, random_state=3).set_axis([7, 7, 9, 9])
    assert lived(survivors.lifetimes(shuffled)) == lived(survivors.lifetimes(rounds))


def test_every_task_and_seed_has_lifetimes_of_its_own():
    frame = pd.concat(
        [
            search(EVERY, {LOW}),
            search(EVERY, EVERY, {HIGH}, seed=1),
            search(EVERY, EVERY, EVERY, {LOW}, task="glue/cola"),
        ]
    )
    found = lived(survivors.lifetimes(frame))
    assert len(found) == 12
    assert [found["glue/rte", 0, *LOW], found["glue/rte", 1, *LOW]] == [1, 1]
    assert [found["glue/rte", 0, *HIGH], found["glue/rte", 1, *HIGH]] == [0, 2]
    assert [found["glue/cola", 0, *LOW], found["glue/cola", 0, *HIGH]] == [3, 2]


def test_a_pruned_part_of_a_surviving_adapter_does_not_end_it():
    rounds = search(EVERY, EVERY)
    rounds["detail.density_by_matrix"][1]["adapters.0.attention.up.weight"] = 0.01
    assert set(lived(survivors.lifetimes(rounds)).values()) == {1}


def test_by_layer_is_the_mean_over_searches_with_attention_first():
    frame = pd.concat([search(EVERY, {LOW}), search(EVERY, EVERY, {LOW, HIGH_FFN}, seed=1)])
    found = survivors.by_layer(survivors.lifetimes(frame))
    assert list(found.columns) == ["attention", "ffn"]
    assert found.index.tolist() == [0, 1]
    assert found.to_numpy().tolist() == [[1.5, 0.5], [0.5, 1.0]]


# The authors' masks


def masks(task: str) -> np.ndarray:
    """(12, 2) as the file has it, attention and then FFN."""
    table = published("lottery_positions").query("task == @task").sort_values("layer")
    return table[["attention", "ffn"]].to_numpy()


@pytest.mark.parametrize("task", AUTHORS_TASKS)
def test_on_twelve_layers_the_authors_mask_is_the_files(task):
    found = survivors.authors(task, 12)
    assert list(found.columns) == ["attention", "ffn"]
    assert found.index.tolist() == list(range(12))
    assert (found.to_numpy() == masks(task)).all()


def test_on_six_layers_each_stands_for_two_of_theirs():
    theirs = masks("rte")
    expected = [(theirs[2 * layer] + theirs[2 * layer + 1]) / 2 for layer in range(6)]
    assert survivors.authors("rte", 6).to_numpy().tolist() == np.array(expected).tolist()


def test_on_twenty_four_layers_two_stand_for_each_of_theirs():
    found = survivors.authors("rte", 24).to_numpy()
    assert found.tolist() == np.repeat(masks("rte"), 2, axis=0).tolist()


def test_without_a_task_it_is_the_mean_of_all_nine():
    assert len(AUTHORS_TASKS) == 9
    mean = np.mean([masks(task) for task in AUTHORS_TASKS], axis=0)
    np.testing.assert_allclose(survivors.authors(None, 12).to_numpy(), mean)


# Concordance


def test_concordance_is_one_for_the_same_order_and_zero_for_the_reverse():
    order = np.array([3.0, 1.0, 2.0, 5.0])
    assert survivors.concordance(order, order) == 1
    assert survivors.concordance(10 * order + 1, order) == 1
    assert survivors.concordance(-order, order) == 0


def test_concordance_is_a_half_for_an_order_without_differences():
    assert survivors.concordance(np.ones(4), np.array([0, 1, 0, 1])) == 0.5


def test_only_pairs_that_theirs_orders_count_and_a_tie_of_ours_counts_a_half():
    # Theirs orders (0, 2), (0, 3), (1, 2), (1, 3): ours has two right, one wrong, one tied.
    ours, theirs = np.array([1, 3, 3, 2]), np.array([0, 0, 1, 1])
    assert survivors.concordance(ours, theirs) == (2 + 0.5) / 4


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=24))
def test_concordance_is_the_share_that_somers_d_of_scipy_gives(pairs):
    ours, theirs = np.array(pairs).T
    assume(len(set(ours)) > 1 and len(set(theirs)) > 1)
    expected = (1 + stats.somersd(theirs, ours).statistic) / 2
    assert survivors.concordance(ours, theirs) == pytest.approx(expected)


# Agreement


def as_ours(table: np.ndarray) -> pd.DataFrame:
    """Lifetimes of one search that are the values of a (layers, 2) table."""
    return pd.DataFrame(
        [
            ("glue/rte", 0, layer, position, table[layer, column])
            for layer in range(len(table))
            for column, position in enumerate(survivors.POSITIONS)
        ],
        columns=["task", "seed", "layer", "position", "rounds"],
    )


@pytest.mark.parametrize("task", AUTHORS_TASKS)
def test_the_authors_own_mask_agrees_with_itself_wholly_and_not_by_chance(task):
    found = survivors.agreement(as_ours(masks(task)), draws=1000).set_index("task").loc[task]
    assert found.concordance == 1
    assert found.p < 0.005
    assert found.high < 1


def test_agreement_has_a_row_for_each_of_the_authors_tasks():
    ours = np.random.default_rng(0).integers(0, 6, (12, 2))
    found = survivors.agreement(as_ours(ours), draws=10)
    assert sorted(found.task) == AUTHORS_TASKS
    for row in found.itertuples():
        theirs = masks(row.task).ravel()
        assert row.concordance == survivors.concordance(ours.ravel(), theirs)


def test_chance_lies_around_a_half():
    ours = np.random.default_rng(1).permutation(24).reshape(12, 2)
    found = survivors.agreement(as_ours(ours))
    np.testing.assert_allclose((found.low + found.high) / 2, 0.5, atol=0.02)
    assert (found.high - found.low).between(0.3, 0.7).all()


def test_chance_is_that_of_all_orders_of_ours():
    ours = np.array([[3, 1], [0, 1]])
    found = survivors.agreement(as_ours(ours)).set_index("task")
    for task in AUTHORS_TASKS:
        theirs = survivors.authors(task, 2).to_numpy().ravel()
        every = [
            survivors.concordance(np.array(order), theirs)
            for order in itertools.permutations(ours.ravel())
        ]
        row = found.loc[task]
        assert row.p == pytest.approx(np.mean(np.array(every) >= row.concordance), abs=0.03)
        assert (row.low, row.high) == (min(every), max(every))


def test_survival_without_differences_agrees_as_chance_does():
    found = survivors.agreement(as_ours(np.ones((12, 2))), draws=50)
    assert (found[["concordance", "low", "high"]] == 0.5).all(axis=None)
    assert (found.p == 1).all()


def test_agreement_is_the_same_every_time_and_another_with_another_seed():
    values = as_ours(np.random.default_rng(2).integers(0, 6, (6, 2)))
    found = survivors.agreement(values, draws=200)
    assert_frame_equal(found, survivors.agreement(values, draws=200))
    other = survivors.agreement(values, draws=200, seed=1)
    assert_frame_equal(found[["task", "concordance"]], other[["task", "concordance"]])
    assert not found.p.equals(other.p)
