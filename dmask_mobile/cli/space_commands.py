"""``dmask space``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmask_mobile import api
from dmask_mobile.cli.console import console, print_json
from dmask_mobile.cli.json_results import ImportFacts, SpaceFacts
from dmask_mobile.cli.options import Cost, Json, Tables
from dmask_mobile.cli.progress import ShownProgress
from dmask_mobile.cli.tables import space_table
from dmask_mobile.quantities import quantity
from dmask_mobile.records.setting_names import Importance

space_app = typer.Typer(no_args_is_help=True, help="Search spaces.")


@space_app.command("show")
def space_show(space: str, as_json: Json = False) -> None:
    """Show the decisions of a space.

    Example: dmask space show demo
    """
    found = api.load_space(space)
    if as_json:
        print_json({**found.to_dict(), **SpaceFacts(digest=found.digest(), num_children=found.num_children())})
    else:
        console.print(space_table(found))


@space_app.command("count")
def space_count(space: str, table: Tables = None, cost: Cost = None, as_json: Json = False) -> None:
    """Show the number of children of a space and the range of their costs; latencies need a table.

    Example: dmask space count demo
    """
    found = api.load_space(space)
    costs = {c.name: c.on(found) for c in api.all_costs(table or [], [api.load_cost(cost)] if cost else [])}
    if as_json:
        ranges = {name: list(cost.reachable()) for name, cost in costs.items()}
        print_json({"num_children": found.num_children(), **ranges})
        return
    console.print(f"{found.num_children():,} children")
    for name, space_cost in costs.items():
        low, high = space_cost.reachable()
        console.print(f"{name} {quantity(low, space_cost.unit)} to {quantity(high, space_cost.unit)}")


@space_app.command("from")
def space_from(
    source: Annotated[
        str, typer.Argument(help="timm:NAME, torchvision:NAME, or module:function that returns a model.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The YAML file; the weights lie beside it.")],
    weights: Annotated[
        str | None, typer.Option(help="A safetensors file or a state dict of torch.save; none for no weights.")
    ] = None,
    importance: Annotated[
        Importance, typer.Option(help="What the order of channels follows; taylor needs --data.")
    ] = "l1",
    data: Annotated[str | None, typer.Option(help="The images that taylor is measured on.")] = None,
    as_json: Json = False,
) -> None:
    """Make the space around a network: its widest child is the network itself, with its weights.

    Example: dmask space from timm:efficientnet_lite0 --weights lite0.pth -o lite0.yaml
    """
    with ShownProgress() as progress:
        found = api.import_space(source, output, weights=weights, importance=importance, data=data, progress=progress)
    facts = SpaceFacts(digest=found.space.digest(), num_children=found.space.num_children())
    if as_json:
        own = ImportFacts(
            path=str(found.path), weights=str(found.weights) if found.weights else None, difference=found.difference
        )
        print_json({**found.space.to_dict(), **facts, **own})
        return
    widest = found.space.child(found.space.largest())
    macs, params = (api.cost_model(name).estimate(widest) for name in ("macs", "params"))
    console.print(
        f"{source}: {len(widest.blocks)} blocks, {quantity(macs.value, 'macs')} multiply-adds,"
        f" {quantity(params.value, 'params')} parameters at {widest.resolution} px"
    )
    console.print(f"its outputs differ from the original's by {found.difference:.1e} of their range")
    console.print(f"{facts['num_children']:,} children in {found.path}")
    if found.weights is not None:
        console.print(f"weights in {found.weights}, channels ordered by {importance}")
