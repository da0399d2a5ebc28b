"""``dmask space``."""

from __future__ import annotations

import typer

from dmask_mobile import api
from dmask_mobile.cli.console import console, print_json
from dmask_mobile.cli.json_results import SpaceFacts
from dmask_mobile.cli.options import Cost, Json, Tables
from dmask_mobile.cli.tables import space_table
from dmask_mobile.quantities import quantity

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
