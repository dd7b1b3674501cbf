"""The tasks by name: columns, labels, metrics, and where the rows are."""

from dataclasses import dataclass, replace

GLUE = "nyu-mll/glue"
GLUE_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SQUAD = "rajpurkar/squad"
SQUAD_REVISION = "7b6d24c440a36b6815f21b70d25016731768db1f"
XSUM = "EdinburghNLP/xsum"
XSUM_REVISION = "7d4d486c2f8ef850b1a11aead99b894ff3dd7da9"


@dataclass(frozen=True)
class TaskSpec:
    """The fixed facts of a task; `labels` is empty where the target is no class.

    `metrics` are reported in order and the first is *the* score. `hub` at the commit `pin` is
    where the data is, under the name `config`; without a `config` it comes inside a wheel. A
    `folder` is where a copy on disk keeps that configuration, if not under its name. Data with a
    `validation_split` has its own rows to select by.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    config: str = ""
    test_split: str = "validation"
    label_column: str = "label"
    kind: str = "classification"
    hub: str = ""
    pin: str = ""
    folder: str = ""
    validation_split: str = ""


def _glue(name, columns, labels, scores, config=None, test_split="validation") -> TaskSpec:
    place = {"config": config or name, "hub": GLUE, "pin": GLUE_REVISION}
    return TaskSpec(f"glue/{name}", columns, labels, scores, test_split=test_split, **place)


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("entailment", "neutral", "contradiction")
_NLI_PAIR = ("premise", "hypothesis")
_POLARITY = ("negative", "positive")

_QUESTIONS = {
    "columns": ("question", "context"),
    "labels": (),
    "metrics": ("answer_f1", "exact_match"),
    "label_column": "answers",
    "kind": "question answering",
}

# Metrics follow the GLUE leaderboard and Wu & Chen (2022), section 3.1: the first one is ranked.
_SPECS = (
    TaskSpec("rotten_tomatoes", ("sentence",), _POLARITY, ("accuracy",)),
    TaskSpec("stsb", _PAIR, (), ("spearman", "pearson")),
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    _glue("sst2", ("sentence",), _POLARITY, ("accuracy",)),
    _glue("mrpc", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    _glue("stsb", _PAIR, (), ("spearman", "pearson")),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    _glue("mnli", _NLI_PAIR, _NLI, ("accuracy",), "mnli", "validation_matched"),
    _glue("mnli-mm", _NLI_PAIR, _NLI, ("accuracy",), "mnli", "validation_mismatched"),
    _glue("qnli", ("question", "sentence"), _ENTAILMENT, ("accuracy",)),
    _glue("rte", _PAIR, _ENTAILMENT, ("accuracy",)),
    _glue("wnli", _PAIR, ("not_entailment", "entailment"), ("accuracy",)),
)
_TEXTS = (
    TaskSpec("squad", **_QUESTIONS, config="plain_text", hub=SQUAD, pin=SQUAD_REVISION),
    TaskSpec("disfl_qa", **_QUESTIONS),
    TaskSpec(
        "xsum",
        columns=("document",),
        labels=(),
        metrics=("rougeL", "rouge1", "rouge2"),
        config="default",
        folder="data",
        validation_split="validation",
        test_split="test",
        label_column="summary",
        kind="summarization",
        hub=XSUM,
        pin=XSUM_REVISION,
    ),
)
TASKS = {spec.name: spec for spec in (*_SPECS, *_TEXTS)}
# Where the rows are whose labels only GLUE's test server has. The diagnostic set `glue/ax` is no
# task of its own: nothing trains on it, and an MNLI model predicts it.
UNLABELLED = {
    spec.name: replace(spec, test_split=spec.test_split.replace("validation", "test"))
    for spec in (*_SPECS, _glue("ax", _NLI_PAIR, _NLI, ("accuracy",)))
    if spec.config
}
