"""The events as a Camera Trap Data Package (Camtrap DP 1.0.2), the format that GBIF takes.

A deployment is a site, a medium a recording, an observation an event. The decision
docs/decisions/0016-camtrap-dp.md gives the reasons.

- Nothing is invented. The standard requires a position, a time and its time zone. A recording that
  lacks one of them is left out and listed in ``unplaced.csv`` with the reason.
- A recording without events has no observation. The model knows only its own species, so the
  standard's observation type ``blank`` would claim too much.
- Times of the standard are whole seconds: the start of an event is rounded down, its end up. The
  exact seconds in the file and the frequency band, for which 1.0.2 has no terms, are in
  observationTags.
- Ids consist of the path below the common root of the audio and of the seconds in the file. They
  stay the same when recordings are added.
- What antpitta cannot know (contributors, licences, the sampling design) is for people to fill in.
  Required terms get a placeholder. What somebody has edited in datapackage.json is kept, further
  terms of a taxon included; what is counted from the tables is counted again.
- ``created`` is the end of the last recording. The time of writing would make a resumed run differ
  from an uninterrupted one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from antpitta.files.deployments import Deployment, Deployments, path_below
from antpitta.files.tables import write_csv
from antpitta.files.texts import (
    atomic_replace,
    read_json,
    remove_unfinished,
    utf8_text,
    write_json,
)
from antpitta.predict.journal import EventRow, JournalEntry, clock_after
from antpitta.predict.tables import Parts, append, or_empty_table, text_table

NAME = "camtrapdp"  # of the format, and of the folder in the output
UNPLACED = "unplaced.csv"
URL = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
RESOURCES = ("deployments", "media", "observations")
_FORBIDDEN = re.compile(r"^[./~]|(?<=\.)\.|[%\r\n]")  # in a path, by the standard; % escapes them
_PLACEHOLDERS = {
    "title": "Animal sounds found by a model in field recordings",
    "description": (
        "Before publishing, complete title, contributors, licenses and project: their present"
        " values only satisfy the standard."
    ),
    "contributors": [{"title": "not stated"}],
    "project": {
        "title": "not stated",
        "samplingDesign": "opportunistic",  # claims least
        "captureMethod": ["timeLapse"],  # by the clock, not triggered by movement
        "individualAnimals": False,
        "observationLevel": ["media"],
    },
    "keywords": ["bioacoustics", "passive acoustic monitoring"],
}
DEPLOYMENTS = (
    *("deploymentID", "locationID", "locationName", "latitude", "longitude"),
    *("coordinateUncertainty", "deploymentStart", "deploymentEnd", "setupBy", "cameraID"),
    *("cameraModel", "cameraDelay", "cameraHeight", "cameraDepth", "cameraTilt", "cameraHeading"),
    *("detectionDistance", "timestampIssues", "baitUse", "featureType", "habitat"),
    *("deploymentGroups", "deploymentTags", "deploymentComments"),
)
MEDIA = (
    *("mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic"),
    *("fileName", "fileMediatype", "exifData", "favorite", "mediaComments"),
)
OBSERVATIONS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd"),
    *("observationLevel", "observationType", "cameraSetupType", "scientificName", "count"),
    *("lifeStage", "sex", "behavior", "individualID", "individualPositionRadius"),
    *("individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight"),
    *("classificationMethod", "classifiedBy", "classificationTimestamp"),
    *("classificationProbability", "observationTags", "observationComments"),
)
MEDIATYPES = {  # as registered with IANA, where they are
    **dict.fromkeys((".wav", ".bwf", ".rf64"), "audio/vnd.wave"),
    ".w64": "audio/x-w64",
    ".caf": "audio/x-caf",
    ".flac": "audio/flac",
    **dict.fromkeys((".au", ".snd"), "audio/basic"),
    **dict.fromkeys((".mp3", ".mpga"), "audio/mpeg"),
    **dict.fromkeys((".ogg", ".oga", ".opus"), "audio/ogg"),
    **dict.fromkeys((".aif", ".aifc", ".aiff"), "audio/x-aiff"),
}

Stay = tuple[Deployment, datetime, datetime]  # of a recorder at a site: from, until
Row = tuple[Any, ...]
Rows = list[Row]


class Medium(NamedTuple):
    """A recording whose position and time are known."""

    entry: JournalEntry
    deployment: Deployment
    recorded_at: datetime  # with a time zone
    id: str  # its path below the root

    def at(self, seconds: float) -> datetime:
        """The recorder's local time at some seconds of the file, across changes of its offset."""
        return clock_after(self.recorded_at, seconds)


@dataclass
class PackageContents:
    """What went into a package, and what was left out.

    Parameters
    ----------
    stays : by site
    media, observations : rows of these tables
    taxa : species with at least one event
    left_out : number of recordings by what they lack
    """

    stays: dict[str, Stay] = field(default_factory=dict)
    media: int = 0
    observations: int = 0
    taxa: set[str] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, Any]:
        """The numbers of rows and of recordings left out, for run.json."""
        return {
            "deployments": len(self.stays),
            "media": self.media,
            "observations": self.observations,
            "left_out": dict(sorted(self.left_out.items())),
        }


def write_package(parts: Parts, out: Path, deployments: Deployments) -> PackageContents:
    """Write OUT/camtrapdp, and OUT/unplaced.csv with the recordings that are not in it.

    Parameters
    ----------
    parts : all recordings with scores
    out : the output folder
    deployments : positions and time zones of the sites

    Returns
    -------
    What was written. If that is no medium there is no package: the standard has no empty one.
    """
    folder = out / NAME
    remove_unfinished(folder)
    contents = PackageContents()
    targets = {folder / "media.csv": MEDIA, folder / "observations.csv": OBSERVATIONS,
               out / UNPLACED: ("file", "reason")}  # fmt: skip
    with ExitStack() as stack:
        unfinished = [stack.enter_context(atomic_replace(target)) for target in targets]
        for i, part in enumerate(or_empty_table(parts())):
            tables = _tables([entry for _, entry in part], deployments, contents)
            for path, columns, rows in zip(unfinished, targets.values(), tables, strict=True):
                append(text_table(rows, columns), path, first=not i)
    if contents.media:
        _write_deployments(contents, folder)
    else:
        for name in (*(f"{name}.csv" for name in RESOURCES), "datapackage.json"):
            (folder / name).unlink(missing_ok=True)
    return contents


def _write_deployments(contents: PackageContents, folder: Path) -> None:
    stays = [contents.stays[site] for site in sorted(contents.stays)]
    rows = [deployment_row(*stay) for stay in stays]
    # dtype object: metres stay integers where some are unknown
    table = pd.DataFrame(rows, columns=list(DEPLOYMENTS), dtype=object)
    write_csv(table, folder / "deployments.csv")
    descriptor = folder / "datapackage.json"
    write_json(describe(stays, contents.taxa, read_json(descriptor)), descriptor)


def _tables(
    entries: list[JournalEntry], deployments: Deployments, contents: PackageContents
) -> tuple[Rows, Rows, Rows]:
    """Rows of media, observations and unplaced recordings; all are added to ``contents``."""
    media: Rows = []
    observations: Rows = []
    unplaced: Rows = []
    for entry in entries:
        medium = locate_recording(entry, deployments)
        if isinstance(medium, str):
            contents.left_out[medium.partition(":")[0]] += 1
            unplaced.append((str(entry.path), medium))
            continue
        site, start, stop = medium.deployment.site, medium.recorded_at, medium.at(entry.duration)
        _, first, last = contents.stays.get(site, (medium.deployment, start, stop))
        contents.stays[site] = (medium.deployment, min(first, start), max(last, stop))
        contents.taxa.update(event[4] for event in entry.events)
        media.append(medium_row(medium))
        observations += [observation_row(medium, event) for event in entry.events]
    contents.media += len(media)
    contents.observations += len(observations)
    return media, observations, unplaced


def locate_recording(entry: JournalEntry, deployments: Deployments) -> Medium | str:
    """Position and time of a recording.

    Parameters
    ----------
    entry : the recording
    deployments : positions and time zones of the sites

    Returns
    -------
    The medium, or a reason such as ``no time: ...``: what is missing, a colon, the details.
    """
    deployment = deployments.of_recording(entry.path, entry.site)
    if deployment is None and entry.site is None:
        return "no site: neither the file nor its folder names a site of the table of deployments"
    if deployment is None:
        return f"unknown site: {entry.site!r} is not in the table of deployments"
    if entry.recorded_at is None:
        return "no time: neither the file nor its name gives the start of the recording"
    recorded_at = datetime.fromisoformat(entry.recorded_at)
    if recorded_at.tzinfo is None and deployment.zone is None:
        return f"no time zone: site {deployment.site!r} has none in the table of deployments"
    if recorded_at.tzinfo is None:
        recorded_at = recorded_at.replace(tzinfo=deployment.zone)
    below = utf8_text(path_below(entry.path, deployments.root).as_posix())
    id = _FORBIDDEN.sub(lambda match: f"%{ord(match[0]):02X}", below)
    return Medium(entry, deployment, recorded_at, id)


def describe(stays: Iterable[Stay], taxa: Iterable[str], earlier: dict[str, Any]) -> dict[str, Any]:
    """The content of datapackage.json.

    Parameters
    ----------
    stays : of all recorders, at least one
    taxa : species names
    earlier : the present content of the file, {} if there is none

    Returns
    -------
    The new content; edited terms are those of ``earlier``.
    """
    recorders = list(stays)
    start = min(start for _, start, _ in recorders)
    stop = max(stop for _, _, stop in recorders)
    listed = earlier.get("taxonomic")
    known = {
        taxon.get("scientificName"): taxon
        for taxon in (listed if isinstance(listed, list) else [])
        if isinstance(taxon, dict)
    }
    return {
        **_PLACEHOLDERS,
        **earlier,
        "profile": f"{URL}/camtrap-dp-profile.json",
        "created": stop.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "sources": [{"title": "antpitta", "version": version("antpitta")}],
        "spatial": _spatial([deployment for deployment, _, _ in recorders]),
        "temporal": {"start": start.date().isoformat(), "end": stop.date().isoformat()},
        "taxonomic": [known.get(name, {"scientificName": name}) for name in sorted(taxa)],
        "resources": [_resource(name) for name in RESOURCES],
    }


def _spatial(deployments: list[Deployment]) -> dict[str, Any]:
    """GeoJSON: a point, or the bounding box of all."""
    west, east = (edge(site.longitude for site in deployments) for edge in (min, max))
    south, north = (edge(site.latitude for site in deployments) for edge in (min, max))
    if (west, south) == (east, north):
        return {"type": "Point", "coordinates": [west, south]}
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _resource(name: str) -> dict[str, str]:
    return {
        "name": name,
        "path": f"{name}.csv",
        "profile": "tabular-data-resource",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "schema": f"{URL}/{name}-table-schema.json",
    }


def deployment_row(deployment: Deployment, start: datetime, stop: datetime) -> Row:
    """The row of a recorder's stay at a site.

    Parameters
    ----------
    deployment : the site
    start, stop : of the stay, with a time zone

    Returns
    -------
    Cells in the order of :data:`DEPLOYMENTS`.
    """
    cells = {
        "deploymentID": deployment.site,
        "locationID": deployment.site,
        "locationName": deployment.site,
        "latitude": deployment.latitude,
        "longitude": deployment.longitude,
        "coordinateUncertainty": deployment.uncertainty,
        "deploymentStart": _whole_second(start),
        "deploymentEnd": _whole_second(stop, up=True),
    }
    return _row(cells, DEPLOYMENTS)


def medium_row(medium: Medium) -> Row:
    """The row of a recording.

    Parameters
    ----------
    medium : the recording

    Returns
    -------
    Cells in the order of :data:`MEDIA`.
    """
    entry = medium.entry
    comments = [
        f"duration: {entry.duration:.3f} s",
        entry.reason.removeprefix(f"{utf8_text(str(entry.path))}: "),
    ]
    cells = {
        "mediaID": medium.id,
        "deploymentID": medium.deployment.site,
        "timestamp": _whole_second(medium.recorded_at),
        "filePath": medium.id,
        "filePublic": "false",
        "fileName": entry.path.name,
        "fileMediatype": MEDIATYPES[entry.path.suffix.lower()],
        "mediaComments": "; ".join(comment for comment in comments if comment),
    }
    return _row(cells, MEDIA)


def observation_row(medium: Medium, event: EventRow) -> Row:
    """The row of an event in a recording.

    Parameters
    ----------
    medium : the recording
    event : ordered as ``EVENT_COLUMNS``

    Returns
    -------
    Cells in the order of :data:`OBSERVATIONS`.
    """
    start, stop, low, high, species, score, model = event
    support = medium.entry.support.get(species)
    cells = {
        "observationID": f"{medium.id}#t={start:.3f},{stop:.3f}&{species}",
        "deploymentID": medium.deployment.site,
        "mediaID": medium.id,
        "eventStart": _whole_second(medium.at(start)),
        "eventEnd": _whole_second(medium.at(stop), up=True),
        "observationLevel": "media",
        "observationType": "animal",
        "scientificName": species,
        "classificationMethod": "machine",
        "classifiedBy": model,
        "classificationProbability": score,
        "observationTags": (
            f"start:{start:.3f}|end:{stop:.3f}|frequencyLow:{low:.1f}|frequencyHigh:{high:.1f}"
        ),
        "observationComments": f"threshold: {support}" if support else None,
    }
    return _row(cells, OBSERVATIONS)


def _row(cells: dict[str, Any], columns: Sequence[str]) -> Row:
    return tuple(cells.get(name) for name in columns)


def _whole_second(moment: datetime, *, up: bool = False) -> str:
    """ISO 8601 with the time zone, rounded down or ``up``."""
    if up and moment.microsecond:
        moment = (moment.astimezone(UTC) + timedelta(seconds=1)).astimezone(moment.tzinfo)
    return moment.isoformat(timespec="seconds")
