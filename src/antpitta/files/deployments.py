"""The table of places: where each site lies, and the zone that its recorder's clock was set to.

Columns by name, in any order: ``site``, ``latitude``, ``longitude`` (degrees, WGS84), and where
they are known ``timezone`` and ``uncertainty`` (metres, for positions rounded to protect a nest).
A zone is an offset or a name: most recorders keep one offset all year, whatever the people around
them do, so ``-04:00`` is right for them and ``Europe/Brussels`` for a clock that was put forward.
A wrong row is a mistake, not a finding: a package with a site in the wrong sea is worse than none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone, tzinfo
from math import isfinite
from pathlib import Path
from zoneinfo import ZoneInfo

from antpitta.core.errors import UserError
from antpitta.files.tables import read_frame

_NAMES = {
    "site": ("site", "site_name", "location", "locationid", "station"),
    "latitude": ("latitude", "lat", "decimallatitude"),
    "longitude": ("longitude", "lon", "long", "lng", "decimallongitude"),
    "timezone": ("timezone", "time_zone", "tz", "utc_offset"),
    "uncertainty": ("uncertainty", "coordinateuncertainty", "coordinateuncertaintyinmeters"),
}
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?", re.IGNORECASE)
_POSITION = re.compile(r"(-?\d{1,2}\.\d{3}) (-?\d{1,3}\.\d{3})")
_ROUNDED = 100  # metres: what names.py rounds a position to


@dataclass(frozen=True)
class Deployment:
    """Where a site lies."""

    site: str
    latitude: float  # degrees, WGS84
    longitude: float
    zone: tzinfo | None = None  # None where nobody says
    uncertainty: int | None = None  # metres


@dataclass(frozen=True)
class Deployments:
    """Every site whose place is known."""

    by_site: dict[str, Deployment]

    def find(self, site: str | None, folders: Sequence[str]) -> Deployment | None:
        """The place of a site; else of the innermost of the ``folders`` that is one.

        A site that is a position (names.py) is its own place. A recording that tells no site, in
        no folder that is one, is at the only place if there is but one.
        """
        for name in (site, *reversed(folders)):
            if name is not None and name in self.by_site:
                return self.by_site[name]
        if site is None:
            return next(iter(self.by_site.values())) if len(self.by_site) == 1 else None
        if not (told := _POSITION.fullmatch(site)):
            return None
        latitude, longitude = float(told[1]), float(told[2])
        if abs(latitude) > 90 or abs(longitude) > 180:
            return None
        return Deployment(site, latitude, longitude, uncertainty=_ROUNDED)


def read_deployments(table: Path) -> Deployments:
    """The places that the table names.

    Raises UserError where it lacks columns, names a site twice, or holds what is no position,
    no time zone or no distance.
    """
    frame = read_frame(table)
    columns = {str(name).lower().replace(" ", "_"): name for name in frame.columns}
    named = {
        what: next((columns[one] for one in known if one in columns), None)
        for what, known in _NAMES.items()
    }
    if lacking := [what for what in ("site", "latitude", "longitude") if named[what] is None]:
        raise UserError(
            "E_TODO",
            f"{table}: needs a column {lacking[0]!r}",
            f"it has {', '.join(map(str, frame.columns))}",
        )
    places: dict[str, Deployment] = {}
    for line, row in zip(frame.index.tolist(), frame.to_dict("records"), strict=True):
        cells = {what: row.get(name, "") for what, name in named.items()}
        try:
            place = _place(**cells)
        except ValueError as trouble:
            raise UserError("E_TODO", f"{table}:{line}: {trouble}") from None
        if place.site in places:
            raise UserError(
                "E_TODO", f"{table}:{line}: site {place.site!r} stands twice", "keep one row"
            )
        places[place.site] = place
    return Deployments(places)


def _place(site: str, latitude: str, longitude: str, timezone: str, uncertainty: str) -> Deployment:
    if not site:
        raise ValueError("names no site; write one, as in the file's or the folder's name")
    return Deployment(
        site,
        _degrees(latitude, "latitude", 90),
        _degrees(longitude, "longitude", 180),
        _zone(timezone) if timezone else None,
        _metres(uncertainty) if uncertainty else None,
    )


def _degrees(text: str, what: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and abs(value) <= most):
        raise ValueError(f"{text!r} is no {what}; write decimal degrees such as -18.3256")
    return value


def _metres(text: str) -> int:
    try:
        value = round(float(text))
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise ValueError(f"{text!r} is no uncertainty; write whole metres, 1 at least")
    return value


def _zone(text: str) -> tzinfo:
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    if found := _OFFSET.fullmatch(text):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3] or 0))
        if offset <= timedelta(hours=14):
            return timezone(-offset if found[1] == "-" else offset)
    else:
        try:
            return ZoneInfo(text)
        except (KeyError, ValueError, OSError):  # OSError: America is a folder
            pass
    raise ValueError(f"{text!r} is no time zone; write -04:00, UTC or America/Puerto_Rico")
