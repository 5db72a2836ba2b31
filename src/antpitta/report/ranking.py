"""Species in the order of every picture and table, and why one has no figure.

- A species is ranked by its average precision. One that has none keeps its row and says why:
  a row that vanished would look like a species that nobody asked for.
- Chance is the share of present among the judged cells: what a model that knows nothing earns.
"""

import pandas as pd


def rank_species(per_species: pd.DataFrame) -> pd.DataFrame:
    """Best average precision first, those without one last, with a column ``chance``."""
    table = per_species.copy()
    judged = table["present"] + table["absent"]
    table["chance"] = (table["present"] / judged.where(judged > 0)).astype(float)
    return table.sort_values(
        ["ap", "present", "species"], ascending=[False, False, True], na_position="last"
    ).reset_index(drop=True)


def keep_most(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """The species with the most present boxes, in the order that they came in."""
    kept = table.sort_values("present", ascending=False, kind="stable").head(most).index
    return table.loc[kept.sort_values()].reset_index(drop=True)


def why_undefined(present: int, absent: int) -> str:
    """Why a species has no average precision."""
    if present == 0 and absent == 0:
        return "nothing judged"
    if present == 0:
        return "nothing judged present"
    return "nothing judged absent" if absent == 0 else "not defined"
