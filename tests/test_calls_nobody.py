"""Nothing of ours opens a connection that was not asked for, or leaves files of others with the user."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dmask_mobile.records.space import SearchSpace
from latency_tables.devices import agent
from latency_tables.devices.agent_session import SOURCE, agent_command
from latency_tables.profiling.plan import networks_of
from latency_tables.runtimes.onnx_runtime import OnnxRuntime
from tests.processes import DMASK, HANG_SECONDS

OURS = ("dmask-mobile",)
REMOTE = re.compile(r"sa_family=AF_INET6?\b(?!.*(?:127\.0\.0\.1|\"::1\"))")
SPACE = {
    "format": "dmask-space", "version": 1, "name": "tiny", "classes": 36, "input": {"resolutions": [16]},
    "stem": {"widths": [8]}, "stages": [{"blocks": 1, "widths": [8], "stride": 2, "expansions": [2], "kernels": [3]}],
    "last": {"widths": [16]},
}  # fmt: skip


def home_environment(home: Path) -> dict[str, str]:
    """The environment of a user with an empty home, who has switched nothing off."""
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    folders = {"CACHE": ".cache", "CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state"}
    return environment | {"HOME": str(home)} | {f"XDG_{kind}_HOME": str(home / path) for kind, path in folders.items()}


def foreign_files(home: Path) -> list[str]:
    """The files in a home that are not in a folder of ours."""
    files = (path.relative_to(home) for path in home.rglob("*") if path.is_file())
    return [str(path) for path in files if not set(path.parts) & set(OURS)]


@pytest.mark.slow
def test_importing_onnxruntime_after_us_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import dmask_mobile, onnxruntime"]
    subprocess.run(command, env=home_environment(tmp_path), check=True, timeout=HANG_SECONDS)
    assert foreign_files(tmp_path) == []


@pytest.mark.slow
def test_the_agent_leaves_nothing_where_none_of_our_packages_is(tmp_path: Path) -> None:
    """As over ssh: the source goes down its stdin."""
    model = tmp_path / "model"
    model.write_bytes(OnnxRuntime().convert(torch.nn.ReLU(), (1, 1, 2, 2), "fp32"))
    load = {"do": "load", "key": "a", "model": base64.b64encode(model.read_bytes()).decode(), "limit": 60}
    sample = {"do": "sample", "key": "a", "seconds": 0.01, "limit": 60}
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        agent_command([sys.executable], OnnxRuntime(), 1, "cpu", ()),
        input=SOURCE + f"{json.dumps(load)}\n{json.dumps(sample)}\n".encode(),
        env=home_environment(home) | {"PYTHONPATH": ""},
        stdout=subprocess.PIPE,
        check=True,
        timeout=HANG_SECONDS,
    )
    assert len(json.loads(done.stdout.splitlines()[-1].removeprefix(agent.MARK.encode()))["wall_ms"]) >= 5
    assert foreign_files(home) == []


def dmask_traced(log: Path, home: Path, *arguments: str, statuses: tuple[int, ...] = (0,)) -> None:
    """Runs the command line; with strace, where it is installed, what it connects to is in the log."""
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log)]
    command = [*(strace if shutil.which("strace") else []), DMASK, *arguments]
    done = subprocess.run(
        command, env=home_environment(home), cwd=home.parent, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert done.returncode in statuses, done.stderr
    assert [line for line in log.read_text().splitlines() if REMOTE.search(line)] == [] if log.exists() else True


@pytest.mark.slow
def test_profile_export_and_verify_call_nobody(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    home.mkdir()
    (tmp_path / "tiny.json").write_text(json.dumps(SPACE))
    dmask_traced(log, home, "profile", "tiny.json", "-o", "table.jsonl", "--minutes", "0.1", "--rounds", "1")
    networks_of(SearchSpace.from_dict(SPACE, "tiny"))[0].write(tmp_path / "child.json")
    dmask_traced(log, home, "export", "child.json", "-o", "run", "--format", "onnx,coreml,litert,executorch,ncnn")
    dmask_traced(log, home, "verify", "run", "--data", "glyphs", "--images", "256", statuses=(0, 1))
    assert foreign_files(home) == []
