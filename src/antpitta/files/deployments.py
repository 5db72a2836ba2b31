"""The table of deployments: where each site lies, and the time zone of its recorder's clock.

Columns by name, in any order: ``site``, ``latitude``, ``longitude`` (degrees, WGS84), and where
they are known ``timezone`` and ``uncertainty`` (metres, for positions rounded to protect a nest).
A zone is an offset or a name: most recorders keep one offset all year, so ``-04:00`` is right for
them, and ``Europe/Brussels`` for a clock that is put forward in summer.
A recording lies at the site that its name or metadata give, else in a folder that is called like
a site.
A row with a mistake is an error, not a finding: a package with a site in the wrong sea is worse
than none.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone, tzinfo
from functools import cached_property
from math import isfinite
from pathlib import Path
from zoneinfo import ZoneInfo

from antpitta.core.errors import UserError, list_names
from antpitta.core.identity import recording_key
from antpitta.files.audio import SUFFIXES
from antpitta.files.remote import Location, RemotePath

_COLUMNS = {
    "site": ("site", "site_name", "location", "locationid", "station"),
    "latitude": ("latitude", "lat", "decimallatitude"),
    "longitude": ("longitude", "lon", "long", "lng", "decimallongitude"),
    "timezone": ("timezone", "time_zone", "tz", "utc_offset"),
    "uncertainty": ("uncertainty", "coordinateuncertainty", "coordinateuncertaintyinmeters"),
}
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d{2}))?", re.IGNORECASE)
_POSITION = re.compile(r"(-?\d{1,2}\.\d{3}) (-?\d{1,3}\.\d{3})")
_POSITION_UNCERTAINTY = 100  # metres: recording_metadata.py rounds positions to this


@dataclass(frozen=True)
class Deployment:
    """Where a site lies, and the clock of its recorder."""

    site: str
    latitude: float  # degrees, WGS84
    longitude: float
    zone: tzinfo | None = None  # None: not known
    uncertainty: int | None = None  # metres


@dataclass(frozen=True)
class Deployments:
    """The deployments of all sites that have one.

    Parameters
    ----------
    by_site : deployments by the name of their site
    root : the folder that holds the recordings, for their folders' names
    """

    by_site: dict[str, Deployment]
    root: Path = Path()

    def of_recording(self, path: Location, site: str | None) -> Deployment | None:
        """The deployment of a recording.

        Parameters
        ----------
        path : of the recording
        site : of the recording, None if unknown

        Returns
        -------
        deployment : None where there is no answer
        """
        return self.find(site, [self.root.name, *path_below(path, self.root).parts[:-1]])

    def find(self, site: str | None, folders: Sequence[str]) -> Deployment | None:
        """The deployment of a recording.

        Parameters
        ----------
        site : of the recording; a site that is a position is its own deployment
        folders : in which the recording lies; the innermost that is a site counts next

        Returns
        -------
        deployment : the only one, where there is but one and the recording has no site; None
            where there is no answer
        """
        for name in (site, *reversed(folders)):
            if name is not None and recording_key(name) in self._by_key:
                return self._by_key[recording_key(name)]
        if site is None:
            return next(iter(self.by_site.values())) if len(self.by_site) == 1 else None
        if not (position := _POSITION.fullmatch(site)):
            return None
        latitude, longitude = float(position[1]), float(position[2])
        if abs(latitude) > 90 or abs(longitude) > 180:
            return None
        return Deployment(site, latitude, longitude, uncertainty=_POSITION_UNCERTAINTY)

    @cached_property
    def _by_key(self) -> dict[str, Deployment]:
        return {recording_key(name): deployment for name, deployment in self.by_site.items()}


def common_root(roots: Sequence[Location]) -> Path:
    """The innermost folder that holds all of some folders and files.

    Parameters
    ----------
    roots : paths or URLs

    Returns
    -------
    An absolute path; the empty path if there is no such folder.
    """
    folders = [absolute_path(root.parent if _is_file(root) else root) for root in roots]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives
        return Path()


def path_below(path: Location, root: Path) -> Path:
    """The path of a file below the common root, or below its drive if it lies elsewhere.

    Parameters
    ----------
    path : of a file, or a URL
    root : as from :func:`common_root`

    Returns
    -------
    A relative path.
    """
    absolute = absolute_path(path)
    return absolute.relative_to(root if absolute.is_relative_to(root) else absolute.anchor)


def absolute_path(path: Location) -> Path:
    """Absolute and without dots; links keep the names that the user gave them.

    Parameters
    ----------
    path : or a URL, which is written as if the store were a folder of this machine

    Returns
    -------
    An absolute path.
    """
    if isinstance(path, RemotePath):
        return Path("/", *path.url.split("://"))
    return Path(os.path.normpath(path.absolute()))


def _is_file(root: Location) -> bool:
    return root.suffix in SUFFIXES if isinstance(root, RemotePath) else not root.is_dir()


def read_deployments(table: Path, root: Path = Path()) -> Deployments:
    """Read the table of deployments.

    Parameters
    ----------
    table : file with a row per site
    root : the folder that holds the recordings

    Returns
    -------
    deployments : by site

    Raises
    ------
    UserError
        E_MISSING_COLUMN: no site, latitude or longitude. E_BAD_DEPLOYMENT: a site without a
        name or in two rows, or a cell that is no position, time zone or distance.
    """
    from antpitta.files.tables import read_frame  # pandas, which prediction does not wait for

    frame = read_frame(table)
    header = {str(name).lower().replace(" ", "_"): name for name in frame.columns}
    columns = {
        field: next((header[name] for name in names if name in header), None)
        for field, names in _COLUMNS.items()
    }
    for field in ("site", "latitude", "longitude"):
        if columns[field] is None:
            what = f"{table}: has the columns {list_names(map(str, frame.columns))}"
            raise UserError("E_MISSING_COLUMN", what, f"add a column {field!r}")
    by_site: dict[str, Deployment] = {}
    for line, row in zip(frame.index.tolist(), frame.to_dict("records"), strict=True):
        cells = {field: row.get(name, "") for field, name in columns.items()}
        try:
            deployment = _parse_row(**cells)
        except _CellError as error:
            what = f"{table}:{line}: {error.what}"
            raise UserError("E_BAD_DEPLOYMENT", what, error.remedy) from None
        if recording_key(deployment.site) in map(recording_key, by_site):
            what = f"{table}:{line}: site {deployment.site!r} has two rows"
            raise UserError("E_BAD_DEPLOYMENT", what, "keep one row")
        by_site[deployment.site] = deployment
    return Deployments(by_site, root)


class _CellError(Exception):
    """A cell with a mistake, and what to write instead."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy


def _parse_row(
    site: str, latitude: str, longitude: str, timezone: str, uncertainty: str
) -> Deployment:
    if not site:
        raise _CellError("no site", "write the site, as in the name of the file or folder")
    return Deployment(
        site,
        _parse_degrees(latitude, "latitude", 90),
        _parse_degrees(longitude, "longitude", 180),
        _parse_zone(timezone) if timezone else None,
        _parse_metres(uncertainty) if uncertainty else None,
    )


def _parse_degrees(text: str, field: str, limit: float) -> float:
    try:
        degrees = float(text)
    except ValueError:
        degrees = float("nan")
    if not (isfinite(degrees) and abs(degrees) <= limit):
        raise _CellError(f"{text!r} is no {field}", "write decimal degrees such as -18.3256")
    return degrees


def _parse_metres(text: str) -> int:
    try:
        metres = round(float(text))
    except (ValueError, OverflowError):
        metres = 0
    if metres < 1:
        raise _CellError(f"{text!r} is no uncertainty", "write whole metres, 1 at least")
    return metres


def _parse_zone(text: str) -> tzinfo:
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    if match := _OFFSET.fullmatch(text):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        if offset <= timedelta(hours=14):
            return timezone(-offset if match[1] == "-" else offset)
    else:
        try:
            return ZoneInfo(text)
        except (KeyError, ValueError, OSError):  # OSError: America is a folder
            pass
    raise _CellError(f"{text!r} is no time zone", "write -04:00, UTC or America/Puerto_Rico")
