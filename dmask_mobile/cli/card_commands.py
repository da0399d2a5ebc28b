"""``dmask card``."""

from __future__ import annotations

from typing import Annotated

import typer

from dmask_mobile import api
from dmask_mobile.cli.console import console, print_json
from dmask_mobile.cli.json_results import WrittenCard
from dmask_mobile.cli.options import Json, Run


def card(
    run: Run,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="The licence of the model, for example apache-2.0; it stays in the card."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the run's model card (README.md in Hugging Face's format).

    Training, testing, exporting and verifying also write it. If README.md was edited by hand, it is kept, and the new
    card is written to README.generated.md.

    Example: dmask card runs/a --license apache-2.0
    """
    written = api.write_card(run, license_name=license_)
    if as_json:
        print_json(WrittenCard(card=str(written.path), kept=None if written.kept is None else str(written.kept)))
    else:
        console.print(written.note)
