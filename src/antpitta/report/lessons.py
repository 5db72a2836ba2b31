"""Pseudo labels as a table: how many a species and cycle, and who taught them."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from antpitta.report.canvas import NONE
from antpitta.report.writing import write_count, write_number

NO_SUM = ("recordings",)  # one recording counts for several species
_NOT_TEACHERS = ("cycle", "species", "recording")


@dataclass(frozen=True)
class PseudoTable:
    """Species x (kind of number, cycle), with a last row for all species."""

    kinds: tuple[str, ...]
    cycles: tuple[str, ...]  # under each kind
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def count_pseudo(pseudo: pd.DataFrame) -> pd.DataFrame:
    """Rows (``kind``, ``cycle``, ``species``, ``value``, ``whole``), one a printed number.

    Takes one row a label (``recording``, ``species``, ``score``, and ``cycle`` unless there was
    only one) or rows that are counted already (``cycle``, ``species``, numbers). Whole numbers
    are counts and add up; others are means.
    """
    table = pseudo if "cycle" in pseudo.columns else pseudo.assign(cycle=1)
    if "recording" in table.columns:
        table = table[["cycle", "species", "score"]].rename(columns={"score": "mean score"})
        table.insert(2, "labels", 1)
    parts = []
    for kind in table.columns:
        if kind in _NOT_TEACHERS or not pd.api.types.is_numeric_dtype(table[kind]):
            continue
        whole = bool((table[kind].dropna() % 1 == 0).all())
        groups = table.groupby(["cycle", "species"], sort=False)[kind]
        values = (groups.sum() if whole else groups.mean()).rename("value").reset_index()
        parts.append(values.assign(kind=str(kind), whole=whole))
    columns = ["kind", "cycle", "species", "value", "whole"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def tabulate_pseudo(pseudo: pd.DataFrame) -> PseudoTable:
    """What :func:`count_pseudo` counts, as it is printed; a mean has no sum over species."""
    counted = count_pseudo(pseudo).to_dict("records")
    places = list(dict.fromkeys((row["kind"], row["cycle"]) for row in counted))
    cells = {(row["species"], row["kind"], row["cycle"]): row for row in counted}
    rows = []
    for species in dict.fromkeys(row["species"] for row in counted):
        line = [cells.get((species, *place)) for place in places]
        rows.append((str(species), tuple(_write_cell(cell) for cell in line)))
    totals = []
    for place in places:
        column = [cell for (_, *at), cell in cells.items() if tuple(at) == place]
        whole = place[0] not in NO_SUM and all(cell["whole"] for cell in column)
        totals.append(write_count(sum(cell["value"] for cell in column)) if whole else NONE)
    return PseudoTable(
        kinds=tuple(dict.fromkeys(kind for kind, _ in places)),
        cycles=tuple(dict.fromkeys(str(cycle) for _, cycle in places)),
        rows=(*rows, ("all species", tuple(totals))),
    )


def _write_cell(cell: Mapping[Hashable, Any] | None) -> str:
    if cell is None:
        return NONE
    return write_count(cell["value"]) if cell["whole"] else write_number(cell["value"])


def list_teachers(pseudo: pd.DataFrame) -> list[str]:
    """What the text columns say of each cycle: ``cycle 1: teacher stage 2, folds 0 to 4``."""
    table = pseudo if "cycle" in pseudo.columns else pseudo.assign(cycle=1)
    said = []
    for cycle, rows in table.groupby("cycle", sort=False):
        for name in rows.columns:
            if name in _NOT_TEACHERS or pd.api.types.is_numeric_dtype(rows[name]):
                continue
            values = ", ".join(sorted(set(rows[name].dropna().astype(str))))
            if values:
                said.append(f"cycle {cycle}: {name} {values}")
    return said
