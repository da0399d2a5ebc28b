"""One setting from its images to trained networks. What was done before is taken from the work folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dmask_mobile import api
from dmask_mobile.clock import now
from dmask_mobile.errors import DmaskError
from dmask_mobile.records.choice import Choice
from dmask_mobile.search.scaling import WAYS
from latency_tables.profiling.profile import what_is_missing
from latency_tables.profiling.settings import ProfileSettings
from search_quality.bench import Bench, Network
from search_quality.children import CENTRE, typical_latency
from search_quality.contenders import Capacity, Contender, MobileNet, Searched, Ungated, Uniform
from search_quality.entries import Entry, Training, best_scaled
from search_quality.images import prepared
from search_quality.jobs import search, search_ungated, supernet_accuracies, train, training_identity
from search_quality.landing import land, random_children
from search_quality.measuring import measure
from search_quality.once import CpuClock, Result, key_of, once

MOBILENETS = ("small", "large")


class Outcome(NamedTuple):
    """What one setting gave; ``left_out``: latencies of scaled networks that do not reach the budget, as a share of the
    median random child's; ``spent``: CPU seconds by kind of work.
    """

    bench: Bench
    entries: list[Entry]
    searches: list[Result]
    ranks: list[Result]
    session: Result
    left_out: dict[str, float]
    spent: dict[str, float]


class Job(NamedTuple):
    """A training."""

    contender: str
    key: str
    network: Network
    seed: int


def say(text: str) -> None:
    """Tells how far the whole has come."""
    print(f"{now()}  {text}", file=sys.stderr, flush=True)


def begin(bench: Bench, spec: str, pool: Executor, spent: dict[str, float]) -> Bench:
    """The same with images, table and budget."""
    images = pool.submit(prepared, bench.work, bench.setting, spec).result()
    bench = bench._replace(images=images)
    minutes = bench.protocol.measuring.profile_minutes

    def job(folder: Path, clock: CpuClock) -> Result:
        settings = ProfileSettings(minutes=minutes, rounds=3, seconds_per_block=0.005, seconds_per_network=0.05)
        made = api.profile(bench.space, folder / "table.jsonl", settings=settings)
        if missing := what_is_missing(made, bench.space):
            raise DmaskError(f"'{folder / 'table.jsonl'}' is {missing}", "raise profile_minutes in protocol.py")
        return {"path": str(folder / "table.jsonl")}

    table = once(bench.work, "table", {"space": bench.space.digest(), "minutes": minutes}, job)
    bench = bench._replace(table=table["path"])
    spent |= {"images": images["cpu_seconds"], "table": table["cpu_seconds"]}
    budget = typical_latency(bench.cost(), bench.cost("macs"), bench.setting.budget_macs)
    return bench._replace(budget_ms=budget)


def contenders_of(bench: Bench, randoms: Sequence[Network]) -> tuple[list[Searched], list[Contender]]:
    """The searches, and everybody who chooses networks, the searches among them."""
    wanted, seeds = bench.setting.contenders, bench.protocol.seeds
    ours = [Searched(bench, seed, "latency", bench.budget_ms) for seed in seeds]
    searches, others = list(ours), list[Contender]()
    if "searched_macs" in wanted:
        macs = float(np.median([bench.macs(network) for network in randoms])) / CENTRE
        searches += [Searched(bench, seed, "macs", macs) for seed in seeds]
    if "uniform" in wanted:
        can_skip = any(decision.kind == "skip" for decision in bench.space.decisions)
        others += [Uniform(bench, way) for way in WAYS if way != "depth" or can_skip]
    if "capacity" in wanted:
        others.append(Capacity(bench))
    others += [Ungated(search, how) for how in ("ungated", "evolved") if how in wanted for search in ours]
    if "mobilenetv3" in wanted:
        others += [MobileNet(bench, variant) for variant in MOBILENETS]
    return searches, [*searches, *others]


def compare(bench: Bench, pool: Executor, spent: dict[str, float]) -> Outcome:
    """All contenders of one setting, chosen, measured and trained."""
    protocol, name = bench.protocol, bench.setting.name
    found = random_children(bench)
    spent["measuring"] = found["cpu_seconds"]
    choices = [Choice(indices=indices) for indices in found["choices"]]
    randoms = [Network(choice=choice) for choice in choices]
    searches, contenders = contenders_of(bench, randoms)
    ours = [each for each in searches if each.cost == "latency"]
    say(f"{name}: {len(searches)} searches, {len(randoms)} random children (budget {bench.budget_ms:.4f} ms)")
    searching = [pool.submit(search, bench, each.seed, each.cost, each.limit) for each in searches]
    jobs = [Job("random", f"random-{i}", network, protocol.first_seed + i) for i, network in enumerate(randoms)]
    random_trainings = _submitted(bench, jobs, pool)
    results = [future.result() for future in searching]
    spent["search"] = _seconds(results)
    say(f"{name}: searches without gates, ranks of the random children")
    ranking = [pool.submit(supernet_accuracies, bench, each.identity, choices) for each in ours]
    ungated = [
        pool.submit(search_ungated, bench, each.searched.identity, each.how, each.searched.seed)
        for each in contenders
        if isinstance(each, Ungated)
    ]
    ranks = [future.result() for future in ranking]
    spent["ranks"], spent["ungated search"] = _seconds(ranks), _seconds([future.result() for future in ungated])
    trained = [future.result() for future in random_trainings]  # nothing else runs from here on
    say(f"{name}: measuring {len(contenders)} contenders")
    landed = land(contenders, randoms, bench, pool)
    left_out = out_of_reach({key: result["ratio"] for key, result in landed.items()}, protocol.measuring.out_of_reach)
    networks = {
        each.key: Network.model_validate(landed[each.key]["network"]) for each in contenders if each.key not in left_out
    }
    session = _session(bench, {**{job.key: job.network for job in jobs}, **networks})
    spent["measuring"] += session["cpu_seconds"]
    spent["choosing by measured latency"] = sum(result["choosing_cpu_seconds"] for result in landed.values())
    say(f"{name}: training what was chosen")
    entries = [_entry(bench, session, [job], [result]) for job, result in zip(jobs, trained, strict=True)]
    entries += _trained(bench, session, networks, pool)
    spent["training"] = sum(training.cpu_seconds for entry in entries for training in entry.trainings)
    return Outcome(bench, entries, results, ranks, session, left_out, spent)


def out_of_reach(ratios: Mapping[str, float], most: float) -> dict[str, float]:
    """Of the scaled networks those that deviate by more than ``most``; a search is compared whatever it chose."""
    scaled = {key: ratio for key, ratio in ratios.items() if key.startswith(("uniform", "mobilenetv3"))}
    return {key: ratio for key, ratio in scaled.items() if abs(ratio - 1) > most}


def _submitted(bench: Bench, jobs: Sequence[Job], pool: Executor) -> list[Future[Result]]:
    """The trainings of these jobs, each once: two contenders may have chosen the same network."""
    keys = [key_of(training_identity(bench, job.network, job.seed)) for job in jobs]
    different = dict(zip(keys, jobs, strict=True))
    futures = {key: pool.submit(train, bench, job.network, job.seed) for key, job in different.items()}
    return [futures[key] for key in keys]


def _trained(bench: Bench, session: Result, networks: dict[str, Network], pool: Executor) -> list[Entry]:
    """The networks that were chosen with their trainings; of those scaled uniformly the best alone has several."""
    first = [job for key, network in networks.items() for job in _jobs(bench, key, network)]
    results = [future.result() for future in _submitted(bench, first, pool)]
    entries = []
    for key in networks:
        own = [(job, result) for job, result in zip(first, results, strict=True) if job.key == key]
        entries.append(_entry(bench, session, [job for job, _ in own], [result for _, result in own]))
    scaled = [entry for entry in entries if entry.contender == "uniform"]
    if scaled:
        best = best_scaled(scaled)
        jobs = [Job("uniform", best.key, best.network, seed) for seed in _scaled_seeds(bench)]
        again = [future.result() for future in _submitted(bench, jobs, pool)]
        entries[entries.index(best)] = _entry(bench, session, jobs, again)
    return entries


def _jobs(bench: Bench, key: str, network: Network) -> list[Job]:
    """The trainings of a network that was chosen; seeds differ between searches."""
    contender, _, which = key.partition("-")
    protocol = bench.protocol
    if contender in ("uniform", "capacity", "mobilenetv3"):
        seeds = _scaled_seeds(bench)[: 1 if contender == "uniform" else None]
    else:
        count = protocol.ungated.trainings if contender in ("ungated", "evolved") else protocol.trainings
        first = protocol.first_seed + (int(which) - protocol.first_seed) * protocol.trainings
        seeds = [first + number for number in range(count)]
    return [Job(contender, key, network, seed) for seed in seeds]


def _scaled_seeds(bench: Bench) -> list[int]:
    """Those of a network that no search has chosen: at least two trainings, so that their spread is known."""
    return [bench.protocol.first_seed + number for number in range(max(2, bench.protocol.trainings))]


def _session(bench: Bench, networks: dict[str, Network]) -> Result:
    """The latencies of all networks, measured in one session."""

    def job(folder: Path, clock: CpuClock) -> Result:
        measured = measure(bench, list(networks.values()))
        ms = dict(zip(networks, measured.ms, strict=True))
        typical = float(np.median([value for key, value in ms.items() if key.startswith("random-")]))
        noisy = measured.disagreement > bench.protocol.measuring.agreement
        told = {"disagreement": measured.disagreement, "passes": measured.passes, "noisy": noisy}
        return {"ms": ms, "typical_ms": typical, **told}

    identity = {**bench.budget, **bench.protocol.measuring.model_dump()}
    return once(
        bench.work, "session", {**identity, "networks": {k: bench.identity(n) for k, n in networks.items()}}, job
    )


def _entry(bench: Bench, session: Result, jobs: Sequence[Job], results: Sequence[Result]) -> Entry:
    ms, network = session["ms"][jobs[0].key], jobs[0].network
    return Entry(
        contender=jobs[0].contender if jobs[0].contender != "mobilenetv3" else jobs[0].key,
        key=jobs[0].key,
        network=network,
        resolution=bench.resolution(network),
        macs=bench.macs(network),
        ms=ms,
        ratio=ms / session["typical_ms"],
        trainings=tuple(
            Training(seed=job.seed, val=result["val"], cpu_seconds=result["cpu_seconds"])
            for job, result in zip(jobs, results, strict=True)
        ),
    )


def _seconds(results: Iterable[Result]) -> float:
    return float(sum(result["cpu_seconds"] for result in results))
