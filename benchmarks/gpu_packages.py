"""What a bare machine with CUDA and torch lacks, packed into archives here and unpacked there.

  python -m benchmarks.gpu_packages pack           here, with a network: gpu_packages/part_1.zip and so on
  python -m benchmarks.gpu_packages unpack         there: whatever parts are in gpu_packages, into gpu_site

nnU-Net and all that it needs but torch, as wheels for the other machine's Python. An archive has at most 64 MiB, since
a machine may take no more at once: bring the parts one after the other, and unpack each before the next. A package that
the machine has already is left as it is there.
"""

import argparse
import importlib.metadata
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

PARTS, SITE = Path("gpu_packages"), Path("gpu_site")
LARGEST = 62 * 2**20
"""Bytes of wheels in one archive; the archive's own entries, and what else travels, need some too."""

WITH_TORCH = {"torch", "torchvision", "triton"}
"""What comes with torch, and must be of its version: not packed."""

ROOTS = ("nnunetv2", "isal", "packaging")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def needed(name: str, seen: set[str]) -> Iterator[str]:
    """Give the installed versions of a package and of all that it needs, ``name==version``, each once."""
    from packaging.requirements import Requirement  # a bare machine, which only unpacks, may lack it

    key = name.lower().replace("_", "-")
    if key in seen or key in WITH_TORCH or key.startswith(("nvidia-", "cuda-")):
        return
    seen.add(key)
    found = importlib.metadata.distribution(name)
    yield f"{found.metadata['Name']}=={found.version}"
    environment = {"extra": ""}
    for line in found.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            yield from needed(requirement.name, seen)


def pack(folder: Path, python: str, roots: Sequence[str] = ROOTS) -> list[Path]:
    """Fetch the wheels and put them into as few archives as they fit in.

    Args:
        folder: for wheels and archives.
        python: version of the other machine's Python, as ``3.12``.
        roots: packages that are needed.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    seen: set[str] = set()
    for requirement in (each for root in roots for each in needed(root, seen)):
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        stem = requirement.replace("-", "_").replace("==", "-")
        if any(path.name.lower().startswith(f"{stem}-".lower()) for path in wheels.glob("*.whl")):
            continue  # fetched by an earlier call
        name = ["--no-deps", requirement]
        binary = ["download", "--only-binary=:all:", "--python-version", python, *platforms, "-d", str(wheels)]
        if subprocess.run([*pip, *binary, *name], stderr=subprocess.DEVNULL).returncode:
            # Published as source only: pure Python, so that a wheel of this machine's serves there.
            subprocess.run([*pip, "wheel", "-w", str(wheels), *name], check=True)
    groups: list[list[Path]] = []
    for wheel in sorted(wheels.glob("*.whl"), key=lambda path: -path.stat().st_size):
        fitting = [g for g in groups if sum(p.stat().st_size for p in g) + wheel.stat().st_size <= LARGEST]
        if fitting:
            fitting[0].append(wheel)
        else:
            groups.append([wheel])
    parts = []
    for number, group in enumerate(groups, start=1):
        parts.append(folder / f"part_{number}.zip")
        with zipfile.ZipFile(parts[-1], "w") as archive:  # wheels are compressed already
            for wheel in group:
                archive.write(wheel, wheel.name)
    return parts


def unpack(folder: Path, site: Path) -> list[str]:
    """Unpack the parts that are there into a folder for ``PYTHONPATH``; give the names of the packages."""
    site.mkdir(exist_ok=True)
    names = []
    for part in sorted(folder.glob("part_*.zip")):
        with zipfile.ZipFile(part) as archive:
            for wheel in archive.namelist():
                name = wheel.split("-")[0]
                try:
                    importlib.metadata.distribution(name)
                except importlib.metadata.PackageNotFoundError:
                    with archive.open(wheel) as file, zipfile.ZipFile(file) as content:
                        content.extractall(site)
                    names.append(name)
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Pack here or unpack there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("--python", default="3.12", help="the other machine's (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.what == "pack":
        for part in pack(PARTS, arguments.python):
            print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")
    else:
        print(f"unpacked into {SITE}: {', '.join(unpack(PARTS, SITE)) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
