"""What each part of the recipe for small images is worth: one child, trained by the recipe and by changed ones.

    python benchmarks/recipes.py --data folder:DIR --resolution 64 --work runs/recipes
    python benchmarks/recipes.py --data fashion-mnist --resolution 28 --train-images 60000 --only default --open-test

The child: the largest of a space, scaled in widths and depth until it just fits a budget of multiply-adds. Each change
is trained with the same seeds as the recipe itself, so differences are of pairs. Accuracies are of validation images;
``--open-test`` opens the test split for the recipe itself: give it once, at the end.
Each training is done once, and its result is kept in ``--work``. Writes ``benchmarks/results/recipes_NAME.json``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import RESULTS, keep, without_folders
from search_quality.images import prepared, read_images, test_images
from search_quality.once import CpuClock, Result, folder_of, once
from search_quality.pool import workers

from dmask_mobile import api
from dmask_mobile.costs.chain import ChainCost
from dmask_mobile.errors import DmaskError
from dmask_mobile.nets.build import build
from dmask_mobile.records.child import ChildSpec
from dmask_mobile.records.space import SearchSpace, load_space
from dmask_mobile.search.budgets import Budget
from dmask_mobile.search.scaling import scaled_within
from dmask_mobile.training.evaluation import evaluate
from dmask_mobile.training.train import TrainSettings, train_child

CHANGES: dict[str, dict[str, object]] = {
    "default": {},
    "no label smoothing": {"label_smoothing": 0.0},
    "mirroring at random": {"augmentation.mirroring": "random"},
    "no mirroring": {"augmentation.mirroring": "never"},
    "shifts half as far": {"augmentation.shift": 0.0625},
    "no shifts": {"augmentation.shift": 0.0},
    "no moving average": {"ema_decay": None},
    "learning rate 0.1": {"learning_rate": 0.1},
    "learning rate 0.4": {"learning_rate": 0.4},
    "batches of 64, learning rate 0.1": {"batch_size": 64, "learning_rate": 0.1},
    "rate of norms' biases 8 times as high": {"norm_bias_rate": 8.0},
    "rate of norms' biases 32 times as high": {"norm_bias_rate": 32.0},
    "weight decay 5e-4": {"weight_decay": 5e-4},
    "AdamW, learning rate 0.004": {"optimizer": "adamw", "learning_rate": 0.004, "weight_decay": 0.05},
}


class Amounts(NamedTuple):
    """See `search_quality.images.Amounts`."""

    resolutions: tuple[int, ...]
    train_images: int | None
    val_images: int | None


class Plan(NamedTuple):
    """What all trainings share; ``images``: the result of `search_quality.images.prepared`."""

    work: Path
    images: dict[str, Any]
    child: ChildSpec
    epochs: int

    def identity(self, change: str, seed: int) -> dict[str, Any]:
        """Everything that decides a training."""
        settings = self.settings(change, seed).model_dump(mode="json")
        return {"child": self.child.digest(), "images": self.images["identity"], "settings": settings}

    def settings(self, change: str, seed: int) -> TrainSettings:
        """The recipe ``small`` with this change."""
        return TrainSettings.of("small", CHANGES[change], epochs=self.epochs, seed=seed)


def child_of(space: SearchSpace, macs: float) -> ChildSpec:
    """The largest child, scaled in widths and depth to at most so many multiply-adds."""
    cost = api.cost_model("macs").on(space)
    assert isinstance(cost, ChainCost)
    choice = scaled_within(space, [Budget(cost, macs)])
    if choice is None:
        raise DmaskError(f"no scaled child has at most {macs:g} multiply-adds", "give larger --macs")
    return space.child(choice)


def train(plan: Plan, change: str, seed: int) -> Result:
    """One training: accuracies on the validation images, of the kept, the plain and the averaged weights."""

    def job(folder: Path, clock: CpuClock) -> Result:
        module = build(plan.child, torch.Generator().manual_seed(seed))
        data = read_images(plan.images["path"])
        trained = train_child(module, data, plan.settings(change, seed), folder / "checkpoint.pt", clock)
        torch.save(module.state_dict(), folder / "weights.pt")
        return {"val": trained.accuracy, "plain": trained.plain, "averaged": trained.averaged}

    return {**once(plan.work, "recipe", plan.identity(change, seed), job), "seed": seed}


def test(plan: Plan, seed: int, amounts: Amounts) -> float:
    """The test accuracy of the recipe itself."""
    module = build(plan.child)
    weights = folder_of(plan.work, "recipe", plan.identity("default", seed)) / "weights.pt"
    module.load_state_dict(torch.load(weights, weights_only=True))
    data = read_images(plan.images["path"])
    return evaluate(module, test_images(plan.work, amounts, plan.images["spec"]), data)


def compared(trainings: dict[str, list[Result]]) -> dict[str, Any]:
    """The trainings of each change, with the mean difference to the recipe itself and its standard error."""
    result = {}
    for change, own in trainings.items():
        differences = [one["val"] - other["val"] for one, other in zip(own, trainings["default"], strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
        result[change] = {
            "trainings": own,
            "mean": statistics.mean(each["val"] for each in own),
            "minus_default": statistics.mean(differences),
            "standard_error": error,
        }
    return result


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All trainings, or what of them was not done before."""
    amounts = Amounts((arguments.resolution,), arguments.train_images, arguments.val_images)
    changes = list(dict.fromkeys(["default", *(arguments.only or CHANGES)]))
    seeds = range(arguments.seeds)
    with workers(arguments.processes) as pool:
        images = pool.submit(prepared, arguments.work, amounts, arguments.data).result()
        content = {**load_space(arguments.space).model_dump(), "classes": images["classes"]}
        space = SearchSpace.model_validate({**content, "input": {"resolutions": [arguments.resolution]}})
        child = child_of(space, arguments.macs)
        plan = Plan(arguments.work, images, child, arguments.epochs)
        futures = {change: [pool.submit(train, plan, change, seed) for seed in seeds] for change in changes}
        trainings = {}
        for change, own in futures.items():
            trainings[change] = [future.result() for future in own]
            each = "  ".join(f"{result['val']:.1%}" for result in trainings[change])
            print(f"{change:<40}{each}", file=sys.stderr, flush=True)
        tested = [pool.submit(test, plan, seed, amounts).result() for seed in seeds] if arguments.open_test else None
    return {
        "data": without_folders(arguments.data),
        "space": arguments.space,
        "resolution": arguments.resolution,
        "images": images["images"],
        "epochs": arguments.epochs,
        "child": {
            "macs": api.cost_model("macs").estimate(child).value,
            "params": api.cost_model("params").estimate(child).value,
        },
        "test": tested,
        "changes": compared(trainings),
    }


def table(result: dict[str, Any]) -> str:
    """Means and differences, for a person."""
    lines = [f"{'recipe':<40}{'mean':>8}{'minus it':>11}"]
    for change, own in result["changes"].items():
        error = "" if own["standard_error"] is None else f" ({100 * own['standard_error']:.1f})"
        lines.append(f"{change:<40}{own['mean']:>8.1%}{100 * own['minus_default']:>+7.1f}{error}")
    if result["test"] is not None:
        lines.append("test: " + ", ".join(f"{accuracy:.2%}" for accuracy in result["test"]))
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Trains, writes the results, prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as dmask reads it: folder:DIR, fashion-mnist, ...")
    parser.add_argument("--name", default="default", help="of the results")
    parser.add_argument("--space", default="mobilenet_small")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--macs", type=float, default=5e6)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train-images", type=int, default=6_000, help="at most so many")
    parser.add_argument("--val-images", type=int, help="at most so many; the default is all")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", action="append", choices=CHANGES, help="these changes instead of all")
    parser.add_argument("--open-test", action="store_true", help="test the recipe itself at the very end")
    parser.add_argument("--work", type=Path, default=Path("runs/recipes"), help="give the same one to go on")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args(given)
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        result = run(arguments)
    except DmaskError as error:
        sys.exit(f"error: {error}")
    keep(f"recipes_{arguments.name}", result, arguments.json, arguments.results)
    if not arguments.json:
        print(table(result))


if __name__ == "__main__":
    main()
