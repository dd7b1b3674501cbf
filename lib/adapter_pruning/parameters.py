"""Every parameter a notebook may have: its type, its range, and one line on what it means."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import PruningError, choose, sentence
from .specs import TASKS

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Density = Annotated[float, Field(gt=0, le=1)]
Bottleneck = Annotated[int, Field(ge=1, le=8192)]
TaskName = Annotated[str, AfterValidator(lambda name: choose("task", name, TASKS))]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class Parameters(BaseModel):
    """The vocabulary of the notebooks' parameter cells; each notebook uses some of it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    profile: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    task: TaskName
    source: Annotated[str, Field(min_length=1)] | None
    model: Annotated[str, Field(min_length=1)]
    seeds: Seeds
    train_size: Count | None
    validation_size: Count | None
    test_size: Count | None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None
    max_length: Annotated[int, Field(ge=8, le=512)]
    bottleneck: Bottleneck
    small_bottleneck: Bottleneck
    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    full_learning_rates: Annotated[list[Rate], Field(min_length=1)]
    epochs: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1)]
    trials: Count
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    warmup_epochs: Annotated[float, Field(ge=0, le=100)]
    evaluations_per_epoch: Annotated[int, Field(ge=1, le=1000)]
    patience: Count
    precision: Literal["auto", "bf16", "fp32"]
    rounds: Annotated[int, Field(ge=0, le=100)]
    drop: Rate
    dense_densities: Annotated[list[Density], Field(min_length=1)]
    control_densities: Annotated[list[Density], Field(min_length=1)]
    sparsities: Annotated[list[Rate], Field(min_length=1)]
    sparsity: Rate
    criterion: Literal["random", "magnitude", "erdos_renyi", "snip", "grasp"]
    factors: Annotated[list[Annotated[int, Field(ge=2, le=64)]], Field(min_length=1)]
    scope: Literal["global", "matrix"]
    scoring_rows: Count
    scoring_sizes: Annotated[list[Count], Field(min_length=2)]
    draws: Annotated[int, Field(ge=2, le=100)]
    head_rate: Rate
    released_rate: Rate
    densities: Annotated[list[Rate], Field(min_length=1)]
    second_task: TaskName
    question_task: TaskName
    question_source: Annotated[str, Field(min_length=1)] | None
    summary_task: TaskName
    summary_source: Annotated[str, Field(min_length=1)] | None
    summary_model: Annotated[str, Field(min_length=1)]
    texts_seeds: Seeds
    texts_train_size: Count | None
    texts_test_size: Count | None
    texts_epochs: Annotated[int, Field(ge=1, le=100)]
    texts_batch_size: Annotated[int, Field(ge=1, le=4096)]
    texts_max_length: Annotated[int, Field(ge=8, le=512)]
    texts_scoring_rows: Count


def check(given: Mapping[str, object], declared: Mapping[str, object], where: str) -> dict:
    """Merge given values over a notebook's declared defaults, once all of them are valid.

    Args:
        given: name -> value, as a profile or a command line gives them.
        declared: name -> default value of the notebook's parameters cell.
        where: what to call the notebook in an error.

    Raises:
        PruningError: an unknown name (with the known ones), a wrong type, a value out of range.
    """
    for name in given:
        choose(f"parameter of {where}", name, declared)
    merged = {**declared, **given}
    for name, value in merged.items():
        choose(f"parameter of {where}", name, Parameters.model_fields)
        rule = Parameters.model_fields[name]
        try:
            TypeAdapter(rule.rebuild_annotation()).validate_python(value, strict=True)
        except ValidationError as error:
            raise PruningError(f"{where}: parameter {sentence(name, error)}") from None
    return merged


ParameterName = Annotated[
    str, AfterValidator(lambda name: choose("parameter", name, Parameters.model_fields))
]


class Profile(BaseModel):
    """What a batch runs: tasks and seeds, parameters for all notebooks and for single ones."""

    model_config = ConfigDict(extra="forbid", strict=True)

    about: Annotated[str, Field(min_length=1)]
    tasks: Annotated[list[TaskName], Field(min_length=1)]
    seeds: Seeds
    parameters: dict[ParameterName, object]
    notebooks: dict[str, dict[str, object]]

    def of(self, notebook: str, declared: Collection[str]) -> dict[str, object]:
        """The parameters this profile gives to a notebook (its file name without the ending).

        Of those for all notebooks, what is `declared` in this one; its own are all given.
        """
        mine = self.notebooks[choose("notebook", notebook, self.notebooks)]
        return {n: value for n, value in self.parameters.items() if n in declared} | mine


def load_profile(name: str, folder: str | Path = "profiles") -> Profile:
    """Read and check `folder/name.yaml`.

    Raises:
        PruningError: unknown name (with the known ones), a damaged file, a wrong type in it.
    """
    known = sorted(file.stem for file in Path(folder).glob("*.yaml"))
    file = Path(folder) / f"{choose('profile', name, known)}.yaml"
    try:
        return Profile.model_validate(yaml.safe_load(file.read_text("utf8")))
    except yaml.YAMLError as error:
        line = getattr(error, "problem_mark", None)
        where = f" (line {line.line + 1})" if line else ""
        raise PruningError(f"the profile {str(file)!r} is not valid YAML{where}") from error
    except ValidationError as error:
        raise PruningError(sentence(f"the profile {str(file)!r}", error)) from None
