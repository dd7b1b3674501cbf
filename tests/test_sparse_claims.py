"""SparseAdapter's claims: which runs decide each, and that moving them moves the verdict."""

import pandas as pd
import pytest

from adapter_pruning import claims, sparse_claims

WIDTH, STANDARD = 64, 16
SPARSITIES = (0.4, 0.8)
CRITERIA = ("random", "magnitude", "erdos_renyi", "snip", "grasp")
NOISE = (0.0, 0.001, -0.001)  # of three seeds, the same for all methods
LARGE = {32: 0.5, 48: 0.67, 64: 0.75}


def rows(method: str, shift: float, width: int, kind="Houlsby", task="t", **more) -> list[dict]:
    return [
        {
            "method": method,
            "task": task,
            "seed": seed,
            "score": 0.7 + noise + shift * (1 + seed / 10),
            "validation_score": 0.7,
            "config.learning_rate": 1e-3,
            "config.evaluations_per_epoch": 2,
            "adapter.kind": kind,
            "adapter.bottleneck": width,
            "history": [
                {"step": step, "validation_loss": loss} for step, loss in ((10, 0.6), (20, 0.5))
            ],
            **more,
        }
        for seed, noise in enumerate(NOISE)
    ]


def sparse(criterion, sparsity, shift=0.0, width=WIDTH, **more):
    detail = {"detail.criterion": criterion, "detail.sparsity": sparsity}
    return rows(f"{criterion} at initialisation", shift, width, **detail, **more)


def world(**shift: float) -> pd.DataFrame:
    """Everything scores alike, but for what is shifted: by name, `snip_40` for SNIP at 40%."""
    found = rows("full fine-tuning", shift.get("full", 0.0), 0, kind=None)
    for width in (WIDTH, 38, 13, STANDARD):
        found += rows(f"dense adapter of {width}", shift.get(f"dense_{width}", 0.0), width)
    for criterion in CRITERIA:
        for s in SPARSITIES:
            found += sparse(criterion, s, shift.get(f"{criterion}_{100 * s:.0f}", 0.0))
    for width, s in LARGE.items():
        moved = shift.get("large", 0.0)
        found += sparse("snip", s, moved, width, **{"detail.standard": STANDARD})
    return pd.DataFrame(found)


def verdicts(said: list[claims.Claim]) -> dict[str, str]:
    return claims.verdicts(said).set_index("claim").verdict.to_dict()


def at_init(frame: pd.DataFrame) -> dict[str, str]:
    said = sparse_claims.at_init(frame, WIDTH)
    return verdicts(said + sparse_claims.equal_size(frame, WIDTH, SPARSITIES))


ALIKE = {
    "SNIP at 40% sparse keeps the dense score to a point": "supported",
    "Random pruning at 80% sparse keeps the dense score to a point": "supported",
    "SNIP beats random at 40% sparse": "undecided",
    "SNIP beats magnitude at 40% sparse": "undecided",
    "SNIP beats erdos-renyi at 40% sparse": "undecided",
    "SNIP beats grasp at 40% sparse": "undecided",
    "SNIP at 40% sparse beats a dense adapter of 38 units": "undecided",
    "SNIP at 80% sparse beats a dense adapter of 13 units": "undecided",
}


def test_where_nothing_differs_scores_are_kept_and_nothing_wins():
    assert at_init(world()) == ALIKE


@pytest.mark.parametrize(
    ("shift", "claim", "verdict"),
    [
        (
            {"snip_40": -0.05},
            "SNIP at 40% sparse keeps the dense score to a point",
            "not supported",
        ),
        (
            {"random_80": -0.05},
            "Random pruning at 80% sparse keeps the dense score to a point",
            "not supported",
        ),
        ({"grasp_40": -0.05}, "SNIP beats grasp at 40% sparse", "supported"),
        ({"random_40": 0.05}, "SNIP beats random at 40% sparse", "not supported"),
        ({"dense_38": -0.05}, "SNIP at 40% sparse beats a dense adapter of 38 units", "supported"),
        (
            {"dense_13": 0.05},
            "SNIP at 80% sparse beats a dense adapter of 13 units",
            "not supported",
        ),
    ],
)
def test_each_claim_is_decided_by_its_own_runs(shift, claim, verdict):
    moved = at_init(world(**shift))
    assert moved[claim] == verdict
    (criterion_or_dense,) = shift
    if not criterion_or_dense.startswith("snip"):
        assert {c: v for c, v in moved.items() if v != ALIKE[c]} == {claim: verdict}


def test_wide_runs_of_the_same_sparsity_are_no_runs_of_the_claims_on_one_width():
    frame = world()
    wider = pd.DataFrame(sparse("snip", 0.4, -0.2, 128))
    assert at_init(pd.concat([frame, wider])) == ALIKE


@pytest.mark.parametrize("kind", ["LoRA", "Pfeiffer"])
def test_other_kinds_are_no_runs_of_the_claims_on_houlsbys(kind):
    other = pd.DataFrame(sparse("snip", 0.4, -0.2, kind=kind))
    assert at_init(pd.concat([world(), other])) == ALIKE


def test_what_was_not_run_is_not_run():
    frame = world()
    frame = frame[frame.method.str.startswith("dense")].drop(
        columns=["detail.criterion", "detail.sparsity", "detail.standard"]
    )
    assert set(at_init(frame).values()) == {"not run"}
    assert sparse_claims.large_sparse(frame, STANDARD) == []


# Large-Sparse


def large(frame):
    return verdicts(sparse_claims.large_sparse(frame, STANDARD))


def test_large_sparse_is_compared_with_the_dense_adapter_of_its_size():
    alike, better = large(world()), large(world(large=0.05))
    beats = [claim for claim in alike if "beat" in claim]
    assert len(beats) == 2 + len(LARGE)
    assert {alike[claim] for claim in beats} == {"undecided"}
    assert {better[claim] for claim in beats} == {"supported"}
    worse = large(world(dense_16=0.05))
    assert {c for c in beats if worse[c] == "not supported"} == {
        c for c in beats if "full" not in c
    }


def test_a_dense_adapter_that_was_looked_at_more_often_is_no_control():
    other = pd.DataFrame(
        rows("dense adapter of 16", 0.2, 16, **{"config.evaluations_per_epoch": 8})
    ).assign(validation_score=0.9)
    assert large(pd.concat([world(), other])) == large(world())


def test_the_papers_figures_stand_beside():
    found = claims.verdicts(sparse_claims.large_sparse(world(), STANDARD)).set_index("claim").paper
    assert found["Large-Sparse, mean over widths, beats standard"] == "+1.30"
    assert found["Large-Sparse, mean over widths, beats full fine-tuning"] == "+0.60"


def history(*losses: float) -> list[dict]:
    return [{"step": 10 * i, "validation_loss": loss} for i, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("large", "standard", "saved"),
    [
        (history(0.6, 0.5), history(0.6, 0.5), 0.0),
        (history(0.5, 0.4, 0.4, 0.4), history(0.9, 0.8, 0.6, 0.5), 0.75),  # 10 steps for 40
        (history(0.9, 0.9, 0.9, 0.5), history(0.5, 0.3, 0.3, 0.3), -3.0),  # 40 for 10
        (history(0.7, 0.6), history(0.65, 0.9), 0.0 - 1.0),  # both reach 0.65: at 20 and at 10
    ],
)
def test_steps_saved_are_counted_to_a_loss_that_both_reach(large, standard, saved):
    one = pd.DataFrame(rows("large", 0, 32)).assign(history=[large] * 3)
    other = pd.DataFrame(rows("standard", 0, 16)).assign(history=[standard] * 3)
    found = sparse_claims.saved_steps(one, other)
    assert list(found.saved) == pytest.approx([saved] * 3)
    assert list(found.seed) == [0, 1, 2]


@pytest.mark.parametrize(
    ("looks", "said"), [((0.5, 0.5), "supported"), ((0.6, 0.5), "not supported")]
)
def test_faster_means_a_quarter_of_the_steps(looks, said):
    frame = world()
    wide = frame["detail.standard"].notna()
    frame["history"] = [
        history(*looks) if w else h for w, h in zip(wide, frame.history, strict=True)
    ]
    (claim,) = [c for c in large(frame) if "fewer steps" in c]
    assert large(frame)[claim] == said


# Kinds


def test_every_kind_is_compared_with_itself_on_every_task():
    frame = pd.DataFrame(
        [
            row
            for task in ("a", "b")
            for kind in ("LoRA", "MAM")
            for row in rows(f"dense {kind} adapter", 0.0, 8, kind, task)
            + sparse(
                "snip", 0.4, -0.1 if (task, kind) == ("b", "MAM") else 0.0, 8, kind=kind, task=task
            )
        ]
    )
    found = verdicts(sparse_claims.variants(frame))
    assert len(found) == 4
    assert {claim for claim, said in found.items() if said != "supported"} == {
        "MAM at 40% sparse keeps its dense score to a point, on b"
    }
