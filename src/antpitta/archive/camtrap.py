"""The events as a Camera Trap Data Package (Camtrap DP 1.0.2), which GBIF takes.

A deployment a site, a medium a recording, an observation an event; why so stands in
docs/decisions/0016-camtrap-dp.md, and what fills the columns in archive/camtrap_rows.py.

- Nothing is made up. The standard wants a place, a time and the time's zone; a recording that
  lacks one is left out, and named in ``unplaced.csv`` with what it lacks.
- A recording without events has no observation: the model knows its species and no others, so
  ``blank`` would say more than anybody knows.
"""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from antpitta.archive.camtrap_rows import (
    DEPLOYMENTS,
    MEDIA,
    OBSERVATIONS,
    Rows,
    deployment_row,
    medium_row,
    observation_row,
)
from antpitta.archive.descriptor import RESOURCES, Stay, describe
from antpitta.archive.events import Parts, append, or_empty
from antpitta.archive.journal import Entry
from antpitta.archive.placing import Survey, locate
from antpitta.files.tables import write_csv
from antpitta.files.texts import read_json, replacing, sweep, write_json

NAME = "camtrapdp"  # of the format, and of the folder in the output
UNPLACED = "unplaced.csv"


@dataclass
class Packed:
    """What went into a package, and how many recordings did not, by what they lack."""

    stays: dict[str, Stay] = field(default_factory=dict)  # by site
    media: int = 0
    observations: int = 0
    taxa: set[str] = field(default_factory=set)
    lacking: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "deployments": len(self.stays),
            "media": self.media,
            "observations": self.observations,
            "left_out": dict(sorted(self.lacking.items())),
        }


def write_package(parts: Parts, out: Path, survey: Survey) -> Packed:
    """OUT/camtrapdp, and OUT/unplaced.csv: file, reason of all recordings that are not in it.

    Where none is in it there is no package, the standard knows no empty one.
    """
    folder = out / NAME
    sweep(folder)
    packed = Packed()
    targets = {folder / "media.csv": MEDIA, folder / "observations.csv": OBSERVATIONS,
               out / UNPLACED: ("file", "reason")}  # fmt: skip
    with ExitStack() as stack:
        unfinished = [stack.enter_context(replacing(target)) for target in targets]
        for i, part in enumerate(or_empty(parts())):
            tables = _tables([one for _, one in part], survey, packed)
            for path, columns, told in zip(unfinished, targets.values(), tables, strict=True):
                append(pd.DataFrame(told, columns=list(columns)), path, first=not i)
    if packed.media:
        stays = [packed.stays[site] for site in sorted(packed.stays)]
        rows = [deployment_row(*stay) for stay in stays]
        # object: metres are whole, also where some are unknown
        table = pd.DataFrame(rows, columns=list(DEPLOYMENTS), dtype=object)
        write_csv(table, folder / "deployments.csv")
        descriptor = folder / "datapackage.json"
        write_json(describe(stays, packed.taxa, read_json(descriptor)), descriptor)
    else:
        for name in (*(f"{name}.csv" for name in RESOURCES), "datapackage.json"):
            (folder / name).unlink(missing_ok=True)
    return packed


def _tables(part: list[Entry], survey: Survey, packed: Packed) -> tuple[Rows, Rows, Rows]:
    """Of media, observations and what is left out; all are counted in ``packed``."""
    media: Rows = []
    observations: Rows = []
    unplaced: Rows = []
    for one in part:
        medium = locate(one, survey)
        if isinstance(medium, str):
            packed.lacking[medium.partition(":")[0]] += 1
            unplaced.append((str(one.path), medium))
            continue
        place, start, stop = medium.place, medium.began, medium.at(one.seconds)
        _, first, last = packed.stays.get(place.site, (place, start, stop))
        packed.stays[place.site] = (place, min(first, start), max(last, stop))
        packed.taxa.update(event[4] for event in one.events)
        media.append(medium_row(medium))
        observations += [observation_row(medium, event) for event in one.events]
    packed.media += len(media)
    packed.observations += len(observations)
    return media, observations, unplaced
