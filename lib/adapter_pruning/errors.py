"""The one exception a reader should ever meet: a sentence with the culprit and the remedy."""

from collections.abc import Iterable
from functools import wraps

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass


class PruningError(ValueError):
    """Bad input, said in one sentence that names the culprit and the remedy."""


def choose(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return `name` if it is one of `valid`.

    Raises:
        PruningError: naming what was asked for and everything that exists.
    """
    valid = list(valid)
    if name not in valid:
        raise PruningError(f"unknown {kind} {name!r}; choose one of: {', '.join(valid)}")
    return name


def sentence(what: str, error: ValidationError) -> str:
    """The first complaint of a pydantic error as one line: what, which value, what is allowed."""
    # Of a field with several types pydantic names all; the deepest is the one that was meant.
    first = max(error.errors(), key=lambda one: len(one["loc"]))
    parts = [str(p) for p in first["loc"] if isinstance(p, int) or p.isidentifier()]
    where = ".".join(parts) or "value"
    rule = first["msg"][0].lower() + first["msg"][1:]
    return f"{what}: {where} is {first['input']!r}; {rule}"


def checked(cls: type) -> type:
    """A frozen dataclass whose fields are checked, strictly, whenever one is made.

    Raises:
        PruningError: from the made class, on an unknown field, a wrong type or range.
    """
    made = dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))(cls)
    validate = made.__init__

    @wraps(validate)
    def __init__(self, *args, **kwargs):  # noqa: N807
        try:
            validate(self, *args, **kwargs)
        except ValidationError as error:
            raise PruningError(sentence(cls.__name__, error)) from None

    made.__init__ = __init__
    return made
