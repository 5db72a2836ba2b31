"""How often each species is there, as a table: species, prevalence."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from antpitta.core.errors import UserMistake
from antpitta.files.tables import read_frame, write_csv


def write_prevalence(species: tuple[str, ...], share: NDArray[np.floating], path: Path) -> None:
    """The share of recordings (species,) that each is in. Estimated out of fold, it is what
    `predict --prevalence` takes for more sound of the same place and season.
    """
    shares = share.astype(float).round(6)
    write_csv(pd.DataFrame({"species": species, "prevalence": shares}), path)


def read_prevalence(path: Path, species: tuple[str, ...]) -> NDArray[np.float64]:
    """The expected shares in the order of ``species``; NaN for those the table leaves out.

    Raises UserMistake for missing columns, a share outside 0..1, or no known species.
    """
    table = read_frame(path)
    if missing := {"species", "prevalence"} - set(table.columns):
        raise UserMistake(f"{path}: no column {sorted(missing)[0]!r}; give species,prevalence")
    shares = pd.to_numeric(table["prevalence"], errors="coerce")
    wrong = ~shares.between(0, 1)
    if wrong.any():
        raise UserMistake(f"{path}:{wrong.idxmax()}: prevalence is no share; write 0 to 1")
    given = dict(zip(table["species"], shares, strict=True))
    if not set(given) & set(species):
        raise UserMistake(f"{path}: none of the model's species, such as {species[0]}; name those")
    return np.array([given.get(name, np.nan) for name in species], dtype=np.float64)
