"""Which species was detected where on which day, and the share of sites with a detection.

- A day is that on which a recording begins, by the recorder's clock. A recording over midnight
  belongs to the day before.
- A species is detected on a day at a site if a detection reaches the species' threshold. A day with
  recordings and without such a detection is 0. A day without recordings is unknown, not 0.
- Naive occupancy is the share of sites with a detection on any day. It is too low, as species are
  missed, and too high, as thresholds let false detections pass. Occupancy models need the history
  of each site, and for the second reason the precision of the threshold.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

SITE_DAYS = ("site", "day", "species", "recordings", "detections", "present", "score")


def site_days(
    surveys: pd.DataFrame, detections: pd.DataFrame, thresholds: Mapping[str, float]
) -> pd.DataFrame:
    """One row for each site, day with recordings, and species with a threshold.

    Parameters
    ----------
    surveys : one row a recording: ``recording``, ``site``, ``day`` (YYYY-MM-DD)
    detections : ``recording``, ``species``, ``score``
    thresholds : by species

    Returns
    -------
    table : ``site``, ``day``, ``species``, ``recordings`` of that day, ``detections`` at or above
        the threshold, ``present`` (1 or 0), and the highest ``score`` (NaN without any)
    """
    days = surveys.groupby(["site", "day"], sort=True).size().rename("recordings").reset_index()
    species = pd.Series(list(thresholds), name="species", dtype=str)
    table = days.merge(species, how="cross")
    placed = detections.merge(surveys, on="recording")
    placed = placed[placed["species"].isin(list(thresholds))]
    limit = placed["species"].map(dict(thresholds)).astype(float)
    placed = placed.assign(passes=placed["score"] >= limit)
    groups = placed.groupby(["site", "day", "species"])
    counts = groups.agg(detections=("passes", "sum"), score=("score", "max")).reset_index()
    table = table.merge(counts, how="left", on=["site", "day", "species"])
    count = table["detections"].fillna(0).astype(int)
    table = table.assign(detections=count, present=(count > 0).astype(int))
    return table[list(SITE_DAYS)]


def detection_histories(table: pd.DataFrame) -> pd.DataFrame:
    """The history of each species and site, one column a day.

    Parameters
    ----------
    table : of :func:`site_days`

    Returns
    -------
    histories : ``species``, ``site``, then a column for each day from the first to the last: 1, 0,
        or missing where the site has no recording
    """
    wide = table.pivot(index=["species", "site"], columns="day", values="present")
    if len(wide.columns):
        days = pd.date_range(wide.columns.min(), wide.columns.max()).strftime("%Y-%m-%d")
        wide = wide.reindex(columns=days)
    wide.columns.name = None
    return wide.astype("Int64").reset_index()


def naive_occupancy(table: pd.DataFrame) -> pd.DataFrame:
    """The share of sites where each species was detected.

    Parameters
    ----------
    table : of :func:`site_days`

    Returns
    -------
    occupancy : ``species``, ``sites``, ``sites_present``, ``naive_occupancy`` (their quotient),
        ``site_days``, ``site_days_present``, and ``detection_rate``, the share of days with a
        detection at the sites that have one at all (NaN without such a site)
    """
    rows = []
    for species, own in table.groupby("species", sort=True):
        by_site = own.groupby("site")["present"].agg(["sum", "size"])
        with_call = by_site[by_site["sum"] > 0]
        rows.append(
            {
                "species": species,
                "sites": len(by_site),
                "sites_present": len(with_call),
                "naive_occupancy": len(with_call) / len(by_site),
                "site_days": len(own),
                "site_days_present": int(own["present"].sum()),
                "detection_rate": with_call["sum"].sum() / with_call["size"].sum()
                if len(with_call)
                else np.nan,
            }
        )
    return pd.DataFrame(rows)
