"""Do exports in every format and precision pass verification, and how large and fast are they?

    python benchmarks/exports.py precisions [--run RUN] [--format NAME] [--json] [--work FOLDER]
    python benchmarks/exports.py children [--json]
    python benchmarks/exports.py published [--json]

``precisions``: a child of mobilenet_small trained on Fashion-MNIST (two epochs, or the RUN given), all formats and
precisions, its 10,000 test images: differences from PyTorch, top-1 agreement, size, seconds of a second conversion in
the same process, milliseconds for an image in the runtime as used by verification (one thread; none for Core ML, whose
evaluator is not a runtime); then four children of demo after one epoch, one conversion and 1,000 images each.
``children``: random children of the five shipped spaces at fp32, four each in ONNX and Core ML, three in the others.
``published``: FBNetV2-F1 to F4 and FBNet-C at fp32 in all formats. Random weights for the last two, their norms matched
to data; 256 random images, 32 for networks of 96 pixels and more. The script writes
``benchmarks/results/exports_PART.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from record import keep

from dmask_mobile import api
from dmask_mobile.costs.counts import Macs, Params
from dmask_mobile.nets.build import build
from dmask_mobile.nets.named import named_child, named_children
from dmask_mobile.records.artifact import Artifact, ModelDescription, Precision, Preprocessing
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import load_space
from dmask_mobile.records.verification import Verification
from dmask_mobile.training.train import TrainSettings
from export.deployable import Deployable
from export.formats.protocols import Counts
from export.formats.registry import FORMATS
from export.verification.numerics import LIMITS, compare
from export.write import export_child

SPACES = ("demo", "mobilenet_small", "fbnetv2_f", "fbnetv2_p", "fbnetv2_l")
RESULT = Path(__file__).parent / "results" / "exports_precisions.json"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TRAINED_CHILDREN = 5
PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def trained_run(number: int, work: Path) -> Path:
    """A run with a child trained on Fashion-MNIST: the first of mobilenet_small for two epochs, others of demo for one.

    An existing run is kept.
    """
    run = work / f"trained{number}"
    if not (run / "checkpoints" / "child.safetensors").exists() or not (run / "trained").exists():
        space = load_space("demo" if number else "mobilenet_small").with_classes(10)
        api.start_run(space.child(space.sample(random.Random(number)), f"trained{number}"), run)
        api.train(run, data="fashion-mnist", settings=TrainSettings(epochs=1 if number else 2))
        (run / "trained").touch()
    return run


def variants(formats: Sequence[str]) -> list[tuple[str, Precision]]:
    """The formats with every precision that they support."""
    return [(name, p) for name in formats for p in PRECISIONS if p not in FORMATS[name].refused]  # type: ignore[index]


def export_and_verify(
    run: Path, formats: Sequence[str], images: int, twice: bool
) -> tuple[dict[str, Artifact], Verification]:
    """All variants of a run's child, by label; ``twice``: converted again, which is the warm time."""
    artifacts = {}
    for name, precision in variants(formats):
        for _ in range(1 + twice):
            (artifact,) = api.export(run, [name], [precision])
        artifacts[artifact.label] = artifact
        say(f"{run.name} {artifact.label}: {artifact.convert_seconds:.1f} s")
    paths = [run / "exports" / artifact.path for artifact in artifacts.values()]
    return artifacts, api.verify(paths, settings=api.VerifySettings(images=images))


def milliseconds(artifact: Artifact, folder: Path) -> float | None:
    """The median time of one image through the runtime, from Python; None for Core ML."""
    if artifact.model_format == "coreml":
        return None
    model = FORMATS[artifact.model_format].open(folder / artifact.path)
    image = torch.rand(artifact.input_shape)
    model.run(image)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        model.run(image)
        times.append(time.perf_counter() - start)
    return 1000 * float(torch.tensor(times).median())


def precisions(run: Path | None, formats: Sequence[str], work: Path) -> dict[str, Any]:
    """The table of formats and precisions, and how many of five children pass in each."""
    torch.set_num_threads(1)
    runs = [run or trained_run(0, work), *(trained_run(number, work) for number in range(1, TRAINED_CHILDREN))]
    table: dict[str, Any] = {}
    passed: dict[str, list[bool]] = {}
    for number, one in enumerate(runs):
        artifacts, verification = export_and_verify(one, formats, 10_000 if number == 0 else 1000, twice=number == 0)
        for label, artifact in artifacts.items():
            checks = {c.quantity: c for c in verification.checks if c.artifact == label}
            passed.setdefault(label, []).append(all(c.verdict in ("passed", "not predicted") for c in checks.values()))
            if not passed[label][-1]:
                say(f"{one.name} {label}: {[c.model_dump() for c in checks.values() if c.verdict != 'passed']}")
            if number == 0:
                table[label] = {
                    **{quantity: check.measured for quantity, check in checks.items()},
                    "convert_seconds": artifact.convert_seconds,
                    "milliseconds": milliseconds(artifact, one / "exports"),
                }
    refused = {name: dict(found.refused) for name, found in FORMATS.items() if found.refused}
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {"table": {}, "children_passed": {}}
    counts = {label: f"{sum(results)} of {len(results)}" for label, results in passed.items()}
    return {
        "table": before["table"] | table,
        "children_passed": before["children_passed"] | counts,
        "refused": refused,
    }


def verify_random(child: ChildSpec, format_name: str, work: Path) -> dict[str, Any]:
    """One random child at fp32: largest error, whether counts, error and metadata pass, and seconds."""
    generator = torch.Generator().manual_seed(0)
    network = telling(child, generator)
    description = ModelDescription(
        model_format=format_name,  # type: ignore[arg-type]  # a key of FORMATS
        child=child,
        child_digest=child.digest(),
        weights_digest="random",
        preprocessing=PREPROCESSING,
        class_names=tuple(map(str, range(child.classes))),
    )
    artifact = export_child(network, description, work)
    model = FORMATS[artifact.model_format].open(work / artifact.path)
    count = 256 if child.resolution < 96 else 32
    images = torch.rand(count, *child.input_shape[1:], generator=generator)
    deployable = Deployable(network, PREPROCESSING)
    with torch.no_grad():
        expected = torch.cat([deployable(image[None]) for image in images])
    (scores,) = model.run(images).values()
    found = compare(expected, scores, torch.zeros(count, dtype=torch.int64))
    counts = Counts(int(Macs().estimate(child).value), int(Params().estimate(child).value))
    holds = (
        found.max_error <= LIMITS["fp32"].max_error
        and model.counts() == counts
        and not sum(model.stray_operations().values())
        and ModelDescription.from_metadata(model.metadata(), artifact.path) == description
    )
    say(
        f"{child.name} at {child.resolution} px, {format_name}: {found.max_error:.1e}, {artifact.convert_seconds:.1f} s"
    )
    return {
        "child": child.name, "px": child.resolution, "max_error": found.max_error,
        "passed": holds, "convert_seconds": artifact.convert_seconds,
    }  # fmt: skip


def telling(child: ChildSpec, generator: torch.Generator) -> torch.nn.Module:
    """A network whose scores depend on its input: random norms, statistics of random data."""
    network = build(child, generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
                module.momentum = 1.0
            elif isinstance(module, torch.nn.Linear):
                module.weight.normal_(generator=generator)
        network.train()(torch.randn(4, *child.input_shape[1:], generator=generator))
    return network.eval()


def random_children() -> dict[str, Any]:
    """Random children of each shipped space, in each format."""
    found: dict[str, Any] = {}
    for name in FORMATS:
        per_space = 4 if name in ("onnx", "coreml") else 3
        results = []
        for space in map(load_space, SPACES):
            generator = random.Random(7)
            for number in range(per_space):
                child = space.child(space.sample(generator), f"{space.name}-{number}")
                with tempfile.TemporaryDirectory() as work:
                    results.append(verify_random(child, name, Path(work)))
        found[name] = summary(results)
    return found


def published() -> dict[str, Any]:
    """The published networks in each format."""
    found: dict[str, Any] = {}
    for name in FORMATS:
        results = []
        for child in map(named_child, named_children()):
            with tempfile.TemporaryDirectory() as work:
                results.append(verify_random(child, name, Path(work)))
        found[name] = summary(results)
    return found


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The number that passed, the largest error, the seconds."""
    seconds = [result["convert_seconds"] for result in results]
    return {
        "passed": f"{sum(result['passed'] for result in results)} of {len(results)}",
        "max_error": max(result["max_error"] for result in results),
        "median_convert_seconds": float(torch.tensor(seconds).median()),
        "each": results,
    }


def main() -> None:
    """Measures one part, writes it, prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["precisions", "children", "published"])
    parser.add_argument("--run", type=Path, help="a trained run to export instead of a new one")
    parser.add_argument(
        "--format", action="append", help="only these formats, for precisions; other rows stay unchanged"
    )
    parser.add_argument("--work", type=Path, help="folder for trained runs; a new one by default")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = arguments.work or Path(tempfile.mkdtemp(prefix="exports-"))
    if arguments.part == "precisions":
        result = precisions(arguments.run, arguments.format or list(FORMATS), work)
    else:
        result = random_children() if arguments.part == "children" else published()
    keep(f"exports_{arguments.part}", result, arguments.json)
    if arguments.json:
        return
    if arguments.part == "precisions":
        for label, row in result["table"].items():
            ms = "-" if row["milliseconds"] is None else f"{row['milliseconds']:.3f}"
            print(
                f"{label:>16} max error {row['max error']:.1e} agreement {row['top-1 agreement']:.2%}"
                f" size {row['size'] / 1024:.0f} KiB {ms} ms {row['convert_seconds']:.1f} s to convert,"
                f" {result['children_passed'][label]} children passed"
            )
    else:
        for name, row in result.items():
            print(
                f"{name:>12} {row['passed']}, max error {row['max_error']:.1e}, {row['median_convert_seconds']:.1f} s"
            )


if __name__ == "__main__":
    main()
