"""What ``evaluate`` prints about the audits of a queue."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import typer

from antpitta import api
from antpitta.cli.display import console, new_table


def show_audits(
    queue: str, precision: float, predicted: Path | None, deployments: Path | None, out: Path | None
) -> None:
    """Print the estimates of every audited species; exit with 1 if one is refused.

    Parameters
    ----------
    queue : folder or URL
    precision : that the thresholds shall have
    predicted : a folder that predict wrote
    deployments : a table of sites and time zones
    out : a folder for the tables
    """
    result = api.evaluate_audits(
        queue, precision, predicted=predicted, deployments=deployments, out=out
    )
    title = "audited candidates (95 % intervals over sites)"
    names = ("species", "judged", "present", "share of calls", "calls missed", "recall")
    table = new_table(title, names)
    for row in result.thresholds.to_dict("records"):
        shown = [
            _interval(row, "prevalence", 100, " %"),
            _interval(row, "missed", 1, ""),
            _interval(row, "recall", 100, " %"),
        ]
        table.add_row(str(row["species"]), str(row["judged"]), str(row["present"]), *shown)
    console.print(table)
    for species, sentence in result.sentences.items():
        console.print(f"{species}: {sentence}")
    for note in result.notes:
        console.print(f"left out: {note}")
    for species, why in result.refused.items():
        console.print(f"refused: {species}: {why}")
    if out is not None:
        console.print(f"tables  {out}")
    if result.refused:
        raise typer.Exit(1)


def _interval(row: Mapping[Any, Any], name: str, scale: float, unit: str) -> str:
    """An estimate and its limits in whole numbers."""
    values = [scale * row[f"{name}{end}"] for end in ("", "_low", "_high")]
    if any(map(isnan, values)):  # a stratum without a verdict
        return "-"
    return f"{values[0]:.0f}{unit}, {values[1]:.0f} to {values[2]:.0f}"
