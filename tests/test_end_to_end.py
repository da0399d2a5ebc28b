"""The whole chain through the command line, with real measurements; `slow`."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from dmask_mobile.data.fashion_mnist import FASHION_MNIST_FOLDER
from dmask_mobile.records.child import ChildSpec
from tests.json_schemas import described
from tests.processes import dmask

pytestmark = pytest.mark.slow


def first_images(folder: Path, count: int) -> Path:
    """A folder with Fashion-MNIST's first images of either part: its files are a head, which says how many, and bytes.

    Source of the format: http://yann.lecun.com/exdb/mnist
    """
    folder.mkdir()
    for archive in FASHION_MNIST_FOLDER.glob("*-ubyte.gz"):
        content = gzip.decompress(archive.read_bytes())
        head, item_bytes = (16, 28 * 28) if "idx3" in archive.name else (8, 1)
        shortened = content[:4] + count.to_bytes(4, "big") + content[8 : head + count * item_bytes]
        (folder / archive.name).write_bytes(gzip.compress(shortened))
    return folder


@pytest.mark.parametrize(("data", "classes"), [("glyphs", 36), ("fashion-mnist", 10)])
def test_chain_step_by_step(data: str, classes: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if data == "fashion-mnist":
        data += f":{first_images(tmp_path / 'images', 8000)}"

    def step(*arguments: object, statuses: tuple[int, ...] = (0,)) -> dict[str, object]:
        done = dmask(*arguments, "--json", cwd=tmp_path)
        assert done.returncode in statuses, done.stderr
        return described(str(arguments[0]), done.stdout)

    profiled = step("profile", "demo", "--classes", classes, "-o", "table.jsonl", "--rounds", 3)
    assert profiled["num_networks"] == 24
    low = dmask("search", "demo", "--data", data, "--budget", "latency=0.0001ms", "--table", "table.jsonl",
                "--allow-drift", "-o", run, cwd=tmp_path)  # fmt: skip
    reach = low.stderr.split("can reach:")[1].split(" ms;")[0].split(" to ")
    budget = sum(map(float, reach)) / 2
    found = step("search", "demo", "--data", data, "--budget", f"latency={budget}ms", "--table", "table.jsonl",
                 "--allow-drift", "-o", run, "--epochs", 2, "--batch-size", 32, "--trials", 2)  # fmt: skip
    assert found["costs"][0] <= budget
    assert step("train", run, "--epochs", 3)["accuracy"] > 1.5 / classes
    assert [a["model_format"] for a in step("export", run)] == ["onnx", "coreml"]
    # 1 as well: a busy machine may leave the latency unverified; everything else must have passed.
    verification = step("verify", run, "--images", 256, statuses=(0, 1))
    assert verification["child_digest"] == ChildSpec.read(run / "child.json").digest()
    for check in verification["checks"]:
        assert check["verdict"] in ("passed", "not predicted") or check["quantity"].startswith("latency"), check
    assert {c["quantity"] for c in verification["checks"]} >= {"latency", "latency budget", "max error", "size"}
    assert (run / "verification.json").exists()


def test_a_latency_is_verified_by_the_runtime_that_ships(tmp_path: Path) -> None:
    """The table, the search, the export and the measurement all are ncnn's."""
    run, space = tmp_path / "run", Path(__file__).parent / "golden" / "space_v1.yaml"

    def step(*arguments: object, statuses: tuple[int, ...] = (0,)) -> dict[str, object]:
        done = dmask(*arguments, "--json", cwd=tmp_path)
        assert done.returncode in statuses, done.stderr
        return described(str(arguments[0]), done.stdout)

    profile = ("profile", space, "--classes", 36, "--runtime", "ncnn", "-o", "t.jsonl", "--rounds", 2)
    assert step(*profile)["runtime"] == "ncnn"
    search = ("search", space, "--data", "glyphs", "--table", "t.jsonl", "-o", run, "--epochs", 1, "--allow-drift",
              "--batch-size", 32)  # fmt: skip
    low = dmask(*search, "--budget", "latency=0.0001ms", cwd=tmp_path)
    reach = low.stderr.split("can reach:")[1].split(" ms;")[0].split(" to ")
    step(*search, "--budget", f"latency={sum(map(float, reach)) / 2}ms")
    step("train", run, "--epochs", 1)
    step("export", run, "--format", "ncnn,onnx")
    checks = step("verify", run, "--images", 256, statuses=(0, 1))["checks"]
    latencies = {check["artifact"]: check for check in checks if check["quantity"] == "latency"}
    assert latencies["ncnn"]["measured"] > 0
    assert latencies["onnx"]["verdict"] == "not predicted"
    assert all(check["verdict"] == "passed" for check in checks if not check["quantity"].startswith("latency"))
