"""The Pruning-Adapter's claims: which runs decide each, and that moving them moves the verdict."""

import pandas as pd
import pytest

from adapter_pruning import claims, prune_claims
from adapter_pruning.prune_claims import ADALORA, FULL, LORA, OUR_RATE, RANDOM, UNIFORM, named

NOISE = (0.0, 0.001, -0.001)  # of three seeds, the same for all methods
METHODS = {
    "full": FULL,
    "lora_released": named("as_released", LORA),
    "lora_fixed": named("fixed", LORA),
    "written": named("as_written"),
    "released": named("as_released"),
    "our_rate": OUR_RATE,
    "fixed": named("fixed"),
    "random": RANDOM,
    "uniform": UNIFORM,
    "adalora": ADALORA,
    "half": prune_claims.DENSITY.format(0.5),
}
# claim -> (the method it is about, the one it is compared with, whether a tie supports it)
CLAIMS = {
    "Prune-LoRA as released keeps the score of LoRA as released to a point": (
        "released",
        "lora_released",
        True,
    ),
    "Prune-LoRA as released keeps the score of full fine-tuning to a point": (
        "released",
        "full",
        True,
    ),
    "Fixed beats as released": ("fixed", "released", False),
    "Fixed beats as released, both at our learning rate": ("fixed", "our_rate", False),
    "Fixed beats as written": ("fixed", "written", False),
    "Which heads are cut matters": ("fixed", "random", False),
    "Giving ranks by importance matters": ("fixed", "uniform", False),
    "Fixed beats AdaLoRA on the whole model": ("fixed", "adalora", False),
    "Fixed keeps the score of LoRA on the whole model to a point": ("fixed", "lora_fixed", True),
    "Cutting heads and FFN at 50% keeps the score to a point": ("half", "lora_fixed", True),
}


def world(tasks=("glue/rte",), **shift):
    return pd.DataFrame(
        {
            "method": method,
            "task": task,
            "seed": seed,
            "score": 0.7 + noise + shift.get(name, 0.0) * (1 + seed / 10),
            "metrics.accuracy": 0.7 + noise + shift.get(name, 0.0),
            "majority.accuracy": 0.5,
            "validation_score": 0.7,
            "config.learning_rate": 1e-3,
        }
        for name, method in METHODS.items()
        for task in tasks
        for seed, noise in enumerate(NOISE)
    )


def verdicts(frame):
    return claims.verdicts(prune_claims.claims(frame)).set_index("claim").verdict.to_dict()


def test_there_are_these_claims_and_no_others():
    assert set(verdicts(world())) == set(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_claim_moves_with_its_runs_and_with_those_it_is_compared_with(claim):
    mine, other, tie = CLAIMS[claim]
    assert verdicts(world())[claim] == ("supported" if tie else "undecided")
    assert verdicts(world(**{mine: 0.1}))[claim] == "supported"
    assert verdicts(world(**{other: 0.1}))[claim] == "not supported"


def test_a_method_that_was_not_run_is_said_so():
    frame = world()
    judged = verdicts(frame[frame.method != ADALORA])
    assert judged["Fixed beats AdaLoRA on the whole model"] == "not run"


def test_the_papers_differences_are_means_over_its_tasks_without_wnli():
    paper = {claim.text: claim.paper for claim in prune_claims.claims(world())}
    lora = [78.16 - 77.24, 0, 87.28 - 88.05, 59.93 - 60.65, 91.06 - 91.63]
    full = [78.16 - 84.56, 68.38 - 80.14, 87.28 - 91.54, 59.93 - 62.45, 91.06 - 92.43]
    texts = list(CLAIMS)
    assert paper[texts[0]] == pytest.approx(sum(lora) / 5)
    assert paper[texts[1]] == pytest.approx(sum(full) / 5)


def test_table_1_has_theirs_and_the_majority_beside_ours_for_every_task_that_was_run():
    frame = world(("glue/wnli", "glue/mnli"))
    table = prune_claims.table1(frame, {FULL: "Full fine-tuning", RANDOM: ""})
    assert table.task.tolist() == ["MNLI", "MNLI", "WNLI", "WNLI"]
    assert table.paper.tolist() == ["84.56", "", "40.85", ""]
    assert set(table.majority) == {"50.0"}
    assert all(cell.startswith("70.0 ±") for cell in table.ours)


@pytest.mark.parametrize("method", [FULL, named("fixed", LORA)])
def test_what_was_searched_for_counts_at_the_setting_that_was_chosen(method):
    frame = world(("glue/mnli",))
    other = {"score": 0.1, "metrics.accuracy": 0.1, "validation_score": 0.1}
    worse = frame[(frame.method == method) & (frame.seed == 0)].assign(
        **other, **{"config.learning_rate": 1e-2}
    )
    both = pd.concat([worse, frame])
    assert verdicts(both) == verdicts(frame)
    rows = {method: ""}
    assert prune_claims.table1(both, rows).equals(prune_claims.table1(frame, rows))


def test_claims_are_about_accuracy_also_where_a_task_ranks_by_another_metric():
    frame = world(fixed=0.1)
    other = frame.assign(score=0.5)
    assert verdicts(other) == verdicts(frame)
    without = frame.drop(columns="metrics.accuracy")
    assert verdicts(without)["Fixed beats as released"] == "supported"


def test_claims_leave_wnli_out():
    frame = world(("glue/rte",), fixed=0.1)
    with_wnli = pd.concat([frame, world(("glue/wnli",), fixed=-0.3)])
    assert verdicts(with_wnli) == verdicts(frame)


SIGNAL, GAIN, SAME_RATE = (
    "Full fine-tuning beats the majority",
    "Fixed beats as released",
    "... also at our learning rate",
)


def by_task(frame):
    return prune_claims.by_task(frame).set_index(["task", "claim"])


def test_each_task_says_whether_it_has_a_signal_and_whether_fixed_is_better_there():
    tasks = {
        "glue/sst2": {"fixed": 0.2, "released": 0.1, "our_rate": 0.1},
        "glue/rte": {"full": -0.3},
        "glue/mnli": {"released": 0.1},
        "glue/wnli": {"full": -0.2, "our_rate": 0.1},
    }
    frame = pd.concat([world((task,), **shift) for task, shift in tasks.items()])
    found = by_task(frame)
    expected = {
        "MNLI": ["supported", "not supported", "undecided"],
        "RTE": ["not supported", "undecided", "undecided"],
        "SST-2": ["supported", "supported", "supported"],
        "WNLI": ["undecided", "undecided", "not supported"],
    }
    assert {task: found.verdict[task].tolist() for task in expected} == expected
    assert len(found) == 3 * len(expected)
    assert found.ours["SST-2", GAIN].startswith("+10.0 [")
    assert found.ours["RTE", SIGNAL].startswith("-10.0 [")
    assert found.ours["WNLI", SAME_RATE].startswith("-10.0 [")


def test_by_task_ranks_by_accuracy_and_shows_what_was_not_run():
    frame = world(("glue/mrpc",), fixed=0.1).assign(score=0.5)
    found = by_task(frame[frame.method != FULL])
    assert found.verdict["MRPC"].tolist() == ["not run", "supported", "supported"]
