"""``kill -9`` at random moments of a search and a training, with and without workers: each must continue correctly.

    python benchmarks/kills.py [--json] [--kills 20]

Each command first runs undisturbed. Then it runs in another folder and is killed after a random share of the
undisturbed time and started again, until it is done. This is repeated until there were ``--kills`` kills of search and
of train, half of them with a worker. The results of the killed runs (logits and supernet, or weights) must equal those
of the undisturbed run, bit for bit. The script writes ``benchmarks/results/kills.json``.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import keep

from dmask_mobile.training.checkpoint import content_digest

DMASK = [sys.executable, "-m", "dmask_mobile"]


def images(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 120), ("val", 30)):
        for kind in "abc":
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / kind / f"{number}.png")
    return folder


def ended_with(run: Path) -> str:
    """A digest of the result of a run."""
    parts: dict[str, Any] = {}
    search = torch.load(run / "search" / "checkpoint.pt", weights_only=True)
    parts["search"] = [search["logits"], search["supernet"]]
    training = run / "checkpoints" / "train.pt"
    if training.exists():
        content = torch.load(training, weights_only=True)
        parts["train"] = [content["network"], content["averaged"], content["optimizer"]["state"]]
    return content_digest(parts)


def run_to_end(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - start


def kill_until_done(command: list[str], seconds: float, most: int, moments: random.Random) -> int:
    """Kills the command at random moments, at most ``most`` times, then lets it end; returns the number of kills."""
    kills = 0
    while kills < most:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.3, 0.8) * seconds)
            if process.returncode:
                raise SystemExit(f"a resumed run ended with {process.returncode}: {command}")
            return kills  # done before the kill
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    run_to_end(command)
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    moments = random.Random(0)
    counted: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = images(folder / "data")
        for workers in (0, 1):
            reading = ["--workers", str(workers), *(["--memory", "0"] if workers else [])]

            def search(run: Path, reading: list[str] = reading) -> list[str]:
                return [*DMASK, "search", "demo", "--data", f"folder:{data}", "--budget", "macs=0.5M", "-o", str(run),
                        "--epochs", "6", "--batch-size", "16", *reading]  # fmt: skip

            def train(run: Path, reading: list[str] = reading) -> list[str]:
                return [*DMASK, "train", str(run), "--epochs", "10", "--batch-size", "32", *reading]

            undisturbed = folder / f"undisturbed{workers}"
            for command in (search, train):
                seconds = run_to_end(command(undisturbed))
                expected, done, runs = ended_with(undisturbed), 0, 0
                while done < options.kills // 2:
                    run = folder / f"killed{workers}-{command.__name__}-{runs}"
                    if command is train:
                        run_to_end(search(run))
                    done += kill_until_done(command(run), seconds, options.kills // 2 - done, moments)
                    runs += 1
                    if ended_with(run) != expected:
                        raise SystemExit(f"{run.name}: the result differs from the undisturbed run")
                counted.append({"command": command.__name__, "workers": workers, "kills": done, "runs": runs})
                print(counted[-1])
    total = sum(one["kills"] for one in counted)
    print(f"{total} of {total} kills went on, bit-identical")
    keep("kills", {"kills": total, "bit_identical": total, "by_command": counted}, options.json)


if __name__ == "__main__":
    main()
