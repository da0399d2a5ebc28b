"""An aarch64 machine to measure on: Debian's aarch64 Python and the aarch64 wheels, under qemu's user-mode emulation.

Needs no root: packages are fetched by apt with a configuration of its own, from the mirror that this machine uses, and
unpacked. qemu itself looks every path up below the root first (``-L``). Times mean nothing there; outputs do.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

WHEELS = ("onnxruntime", "numpy")
CPU = "cortex-a76"
APT_CONFIG = """
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "5";
Dir::Etc::SourceList "FOLDER/sources.list";
Dir::Etc::SourceParts "-";
Dir::State "FOLDER/state";
Dir::State::Status "FOLDER/status";
Dir::Cache "FOLDER/cache";
"""
# onnxruntime's wheel crashes at import when /proc/cpuinfo describes no ARM core; this one is a Cortex-A76.
CPUINFO = """\
processor\t: 0
model name\t: Cortex-A76 (qemu)
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


def arm64_python() -> list[str]:
    """The command that is an aarch64 Python with ONNX Runtime, of the versions installed here; builds it once."""
    root = arm64_root(Path.home() / ".cache" / "dmask-mobile-tests")
    (python,) = (root / "usr" / "bin").glob("python3.[0-9]*")
    return ["qemu-aarch64-static", "-cpu", CPU, "-L", str(root), str(python)]


def arm64_root(cache: Path) -> Path:
    """The folder below ``cache`` that holds the aarch64 files."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    root = cache / "-".join(["arm64", codename, *(version(name) for name in WHEELS)])
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            new = Path(folder) / "root"
            _unpack_debian(Path(folder), new, codename)
            _unpack_wheels(new)
            (new / "proc").mkdir()
            (new / "proc" / "cpuinfo").write_text(CPUINFO)
            new.rename(root)
    return root


def _unpack_debian(folder: Path, root: Path, codename: str) -> None:
    """Python, its libraries, and the C++ library, from the mirror of this machine's apt."""
    wanted = ("Created-By: Packages", "Origin: Debian", f"Codename: {codename}", "Component: main")
    listing = ("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)")
    sources = subprocess.run([*listing, *wanted], check=True, capture_output=True, text=True).stdout.splitlines()
    assert sources, "apt knows no Debian mirror: run 'apt-get update'"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb {sources[0]}\n")
    config = folder / "apt.conf"
    config.write_text(APT_CONFIG.replace("FOLDER", str(folder)))
    apt_get = ("env", f"APT_CONFIG={config}", "apt-get", "-qq")
    subprocess.run([*apt_get, "update"], check=True)
    install = ("install", "--yes", "--download-only", "--no-install-recommends")
    subprocess.run([*apt_get, *install, "python3", "libstdc++6"], check=True)
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True)


def _unpack_wheels(root: Path) -> None:
    """The aarch64 wheels of the versions installed here, for the root's Python."""
    (python,) = (root / "usr" / "bin").glob("python3.[0-9]*")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:")
    pip += ("--retries", "10", "--timeout", "60")
    tags = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
    target = root / "usr" / "lib" / "python3" / "dist-packages"
    what = [f"{name}=={version(name)}" for name in WHEELS]
    number = python.name.removeprefix("python")
    subprocess.run([*pip, *tags, f"--python-version={number}", "--target", str(target), *what], check=True)
