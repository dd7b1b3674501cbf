"""One file of pins: everything that installs reads it, and it holds everything."""

import re
import sysconfig
from importlib.metadata import distributions, version
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)$")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [PIN.match(line) for line in lines if line and not line.startswith("#")]
    assert all(found), "a line of constraints.txt is not name==version"
    return {canonical(match[1]): match[2] for match in found}


def test_conda_takes_its_versions_from_the_same_pins_as_make():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert "--constraint constraints.txt" in pip
    assert any(".[test]" in line for line in pip)
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text()
    loose = [item for item in environment["dependencies"] if isinstance(item, str)]
    assert [item for item in loose if "=" in item] == ["python=3.11"]


def test_every_installed_package_has_the_version_that_is_pinned():
    expected = pins()
    # Whoever imports setuptools puts its own copies of some packages on the path, too.
    installed = distributions(path=[sysconfig.get_path("purelib")])
    ours = {canonical(d.metadata["Name"]): d.version.partition("+")[0] for d in installed}
    assert len(ours) > 100
    assert {n: v for n, v in ours.items() if n in expected and v != expected[n]} == {}


def test_torch_is_pinned_to_a_version_without_a_range_or_a_build():
    assert pins()["torch"] == version("torch").partition("+")[0]


def test_pyproject_pins_nothing():
    assert "==" not in (ROOT / "pyproject.toml").read_text()
