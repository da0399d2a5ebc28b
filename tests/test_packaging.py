"""The wheel and the source archive: complete, with the version of the tag, and working outside of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.processes import run_command

ROOT = Path(__file__).parents[1]
PACKAGES = ("dmask_mobile", "export", "latency_tables")
TAG = "v7.8.9"

pytestmark = pytest.mark.slow  # builds, and starts processes that import torch


def git(*arguments: str, folder: Path = ROOT) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "safe.directory=*")
    command = ("git", *identity, *arguments)
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def source_files() -> list[str]:
    """Files of the working tree that git has or would add."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted(name for name in set(listed) if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives, built from a tagged commit of the working tree."""
    folder = tmp_path_factory.mktemp("packaging")
    tree = folder / "tree"
    for name in source_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    git("init", "--quiet", folder=tree)
    git("add", "--all", folder=tree)
    git("commit", "--quiet", "--message", "as it is", folder=tree)
    git("tag", TAG, folder=tree)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(tree)]
    done = run_command(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def unpacked(built: Path) -> Path:
    """The files of the wheel, as pip would install them."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(built / "unpacked")
    return built / "unpacked"


def run_unpacked(unpacked: Path, *arguments: str) -> str:
    """Runs Python with the wheel's files in front, in a folder that is no checkout."""
    elsewhere = unpacked.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    done = run_command(
        [sys.executable, *arguments],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_archives_hold_every_file_of_the_packages(built: Path, unpacked: Path) -> None:
    ours = {name for name in source_files() if name.startswith(PACKAGES)}
    in_wheel = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert ours - in_wheel == set()
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        in_source = {name.partition("/")[2] for name in source.getnames()}
    assert {*ours, "README.md", "LICENSE", "pyproject.toml"} - in_source == set()


def test_the_version_is_that_of_the_tag(built: Path, unpacked: Path) -> None:
    version = TAG.removeprefix("v")
    assert {path.name for path in built.iterdir() if path.is_file()} == {
        f"dmask_mobile-{version}-py3-none-any.whl",
        f"dmask_mobile-{version}.tar.gz",
    }
    assert run_unpacked(unpacked, "-m", "dmask_mobile", "--version").strip() == version


def test_commands_work_outside_of_the_checkout(unpacked: Path) -> None:
    """Those that read files of the packages: a space, a table, a published network, templates."""

    def dmask(*arguments: str) -> str:
        return run_unpacked(unpacked, "-m", "dmask_mobile", *arguments)

    assert json.loads(dmask("space", "count", "demo", "--json"))["num_children"] > 1
    assert "onnxruntime" in dmask("table", "show", "epyc-onnxruntime-1thread-demo", "--json")
    dmask("export", "fbnetv2_f1", "--format", "onnx", "-o", "run")
    dmask("report", "run", "-o", "report.html")
    assert (unpacked.parent / "elsewhere" / "report.html").read_text().startswith("<!doctype html>")
