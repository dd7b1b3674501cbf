"""Run a notebook through papermill, once every one of its parameters has been checked.

    python -m adapter_pruning.runner notebooks/02_weight_tickets.ipynb out.ipynb \
        --profile quick --set rounds=3 --set seeds=[0,1]
"""

import argparse
import ast
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from .errors import PruningError
from .parameters import check, load_profile


def declared(notebook: str | Path) -> dict[str, object]:
    """Name -> default value of a notebook's parameters cell.

    Raises:
        PruningError: no such notebook, no parameters cell, a default that is not a literal.
    """
    if not Path(notebook).is_file():
        raise PruningError(f"no notebook {str(notebook)!r}")
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        source = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
        # Not papermill's own reading, which passes over annotations such as `int | None`.
        return {line.target.id: ast.literal_eval(line.value) for line in ast.parse(source).body}
    except StopIteration:  # no cell has the tag
        raise PruningError(f"{str(notebook)!r} has no cell tagged 'parameters'") from None
    except (ValueError, SyntaxError, AttributeError, nbformat.ValidationError) as error:
        raise PruningError(
            f"{str(notebook)!r} is not a notebook whose parameters are lines of the form "
            f"`name: type = literal`"
        ) from error


def run(notebook: str | Path, output: str | Path, given: Mapping[str, object]) -> None:
    """Execute a notebook with the given parameters; `output` appears when it has succeeded.

    The kernel works in the current folder. Where a cell fails, the notebook up to there is left
    beside the output as `*.failed.ipynb`.

    Raises:
        PruningError: a bad parameter, before a kernel starts; or a failing cell, with its error.
    """
    notebook, output = Path(notebook), Path(output)
    defaults = declared(notebook)
    check(given, defaults, notebook.stem)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    try:
        papermill.execute_notebook(
            str(notebook), str(partial), dict(given), kernel_name="python3", progress_bar=False
        )
    except PapermillExecutionError as error:
        raise PruningError(
            f"cell {error.exec_count} of {notebook.name} failed with {error.ename}: "
            f"{error.evalue}; see {str(partial)!r}"
        ) from error
    _hide_like_the_original(partial)
    os.replace(partial, output)


def _hide_like_the_original(notebook: Path) -> None:
    """Give the injected parameters the tags that show or hide the notebook's own."""
    content = nbformat.read(notebook, as_version=4)
    tags = {tag: cell for cell in content.cells for tag in cell.metadata.get("tags", [])}
    if "injected-parameters" in tags:
        shown = tags["injected-parameters"].metadata.tags
        shown += [t for t in tags["parameters"].metadata.tags if t.startswith(("remove", "hide"))]
        nbformat.write(content, notebook)


def assignments(pairs: list[str]) -> dict[str, object]:
    """`["rounds=3", "seeds=[0, 1]"]` -> name -> value, read as YAML.

    Raises:
        PruningError: a pair without an equals sign, or a value that is not YAML.
    """
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise PruningError(f"--set takes name=value, not {pair!r}")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise PruningError(f"the value of {name!r} is not readable: {value!r}") from error
    return values


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 on success, 2 and one sentence on bad input or a failed cell."""
    parser = argparse.ArgumentParser(prog="adapter_pruning.runner", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--profile", help="a file of profiles/, without its ending")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    try:
        given = {}
        if options.profile:
            profile, known = load_profile(options.profile), declared(options.notebook)
            given = profile.of(options.notebook.stem, known) | {"profile": options.profile}
        run(options.notebook, options.output, given | assignments(options.set))
    except PruningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
