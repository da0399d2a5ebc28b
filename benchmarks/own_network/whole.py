"""The comparison, from the given network to trained networks; what was done before is taken from the work folder."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from search_quality.once import Result

from dmask_mobile import api
from dmask_mobile.clock import now
from dmask_mobile.records.child import ChildSpec
from own_network.given import Given
from own_network.jobs import Job, scale_uniformly, search, session, train


class Compared(NamedTuple):
    """A network of a contender after its training, with its latency in ms."""

    job: Job
    trained: Result
    ms: float
    predicted_ms: float | None
    macs: float


def say(text: str) -> None:
    """Tells how far the whole has come."""
    print(f"{now()}  {text}", file=sys.stderr, flush=True)


def compare(given: Given) -> tuple[list[Compared], dict[str, Any]]:
    """All contenders, chosen, trained and measured; what else was found on the way."""
    found: list[tuple[Job, Result]] = []
    notes: dict[str, Any] = {}
    for seed in range(given.plan.seeds):
        for contender in given.plan.contenders:
            say(f"seed {seed}: {contender}")
            job = _job(given, contender, seed, notes)
            found.append((job, train(given, job)))
            say(f"seed {seed}: {contender}, {found[-1][1]['val']:.2%} on the validation images")
    say("measuring")
    children = {f"{job.contender}-{job.seed}": job.child for job, _ in found}
    if "original" not in given.plan.contenders:
        children["original"] = given.original
    measured = session(given, children)
    model = api.cost_model("macs")
    notes["session"] = measured
    return [
        Compared(
            job,
            trained,
            measured["ms"][f"{job.contender}-{job.seed}"],
            measured["predicted_ms"][f"{job.contender}-{job.seed}"],
            model.estimate(job.child).value,
        )
        for job, trained in found
    ], notes


def _job(given: Given, contender: str, seed: int, notes: dict[str, Any]) -> Job:
    """The training of a contender's network; it is chosen first."""
    plan = given.plan
    if contender == "original":
        return Job(contender, seed, given.original, plan.fine_tuning(seed), str(given.path))
    if contender.startswith("uniform"):
        resolutions = plan.resolutions
        smaller = contender == "uniform_resolution" and len(resolutions) > 1
        chosen = scale_uniformly(given, resolutions[-2 if smaller else -1])
    else:
        chosen = search(given, "macs" if contender == "macs" else "latency", seed)
    notes[f"{contender}-{seed}"] = {name: value for name, value in chosen.items() if name != "child"}
    child, start = ChildSpec.model_validate(chosen["child"]), str(given.path)
    if contender != "scratch":
        return Job(contender, seed, child, plan.fine_tuning(seed), start)
    ours = train(given, Job("ours", seed, child, plan.fine_tuning(seed), start))
    epochs = plan.epochs + max(1, round(chosen["search_seconds"] * plan.epochs / ours["cpu_seconds"]))
    return Job(contender, seed, child, plan.from_scratch(seed, epochs), "")
