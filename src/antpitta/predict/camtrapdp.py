"""Where and when a recording was made, or what is lacking to say so.

A place comes from the table of places or from the file, a time from the file, its zone from either;
a recording that lacks one of them is told apart by the word before the colon.

datapackage.json of a Camtrap DP: what the tables are, and the place, time and taxa they span.

What antpitta cannot know (contributors, licences, the design of the sampling) is left to people:
the standard's required terms are filled with words that say so, and whatever somebody has written
into the file stays when it is written anew, the further terms of a taxon (rank, vernacular names)
too. What is counted from the tables is counted again.

``created`` is the end of the last recording: the hour of the run would tell a run that was
stopped from one that was not.

The three tables of a Camtrap DP: their columns, and what fills them from what is known.

- The standard's times are whole seconds: an event begins at the second that it begins in, and ends
  at the one that it ends before. Its exact seconds in the file, and its band in Hz, for which 1.0.2
  has no terms, are observationTags.
- Ids are made of the path below what was listened to, and of the seconds in the file: they stay
  what they are when more recordings come.

The events as a Camera Trap Data Package (Camtrap DP 1.0.2), which GBIF takes.

A deployment a site, a medium a recording, an observation an event; why so stands in
docs/decisions/0016-camtrap-dp.md, and what fills the columns in predict/camtrapdp.py.

- Nothing is made up. The standard wants a place, a time and the time's zone; a recording that
  lacks one is left out, and named in ``unplaced.csv`` with what it lacks.
- A recording without events has no observation: the model knows its species and no others, so
  ``blank`` would say more than anybody knows.
"""

import os
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

from antpitta.files.audio import SUFFIXES
from antpitta.files.deployments import Deployment, Deployments
from antpitta.files.remote import Location, RemotePath
from antpitta.files.tables import write_csv
from antpitta.files.texts import atomic_replace, read_json, remove_unfinished, write_json
from antpitta.predict.exports import Parts, append, or_empty_table
from antpitta.predict.journal import EventRow, JournalEntry

_UNFIT = re.compile(r"^[./~]|(?<=\.)\.|[%\r\n]")  # what the standard bars from a path, and %


@dataclass(frozen=True)
class DeploymentInfo:
    """What a package needs beyond what was heard: where the sites lie, and its paths begin."""

    deployments: Deployments
    home: Path


class Medium(NamedTuple):
    """A recording whose place and time are known."""

    one: JournalEntry
    place: Deployment
    began: datetime  # aware of its zone
    id: str  # its path below home

    def at(self, seconds: float) -> datetime:
        """By the recorder's clock, also where that was put forward meanwhile."""
        moment = self.began.astimezone(UTC) + timedelta(seconds=seconds)
        return moment.astimezone(self.began.tzinfo)


def common_root(roots: Sequence[Location]) -> Path:
    """The innermost folder that holds all of these folders and files."""
    folders = [_whole(root.parent if _is_file(root) else root) for root in roots]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives
        return Path()


def locate_recording(one: JournalEntry, survey: DeploymentInfo) -> Medium | str:
    """When and where; or what is lacking, a colon, and the particulars."""
    whole = _whole(one.path)
    inside = whole.is_relative_to(survey.home)
    below = whole.relative_to(survey.home if inside else whole.anchor)
    place = survey.deployments.find(one.site, [survey.home.name, *below.parts[:-1]])
    if place is None and one.site is None:
        return "no site: neither the file nor its folder names one of the table of places"
    if place is None:
        return f"no place: site {one.site!r} is not in the table of places"
    if one.recorded_at is None:
        return "no time: neither the file nor its name tells when it began"
    began = datetime.fromisoformat(one.recorded_at)
    if began.tzinfo is None and place.zone is None:
        return f"no time zone: give the one of site {place.site!r} in the table of places"
    began = began if began.tzinfo else began.replace(tzinfo=place.zone)
    id = _UNFIT.sub(lambda found: f"%{ord(found[0]):02X}", below.as_posix())
    return Medium(one, place, began, id)


def _is_file(root: Location) -> bool:
    return root.suffix in SUFFIXES if isinstance(root, RemotePath) else not root.is_dir()


def _whole(path: Location) -> Path:
    """Absolute and without dots; links are as the user names them."""
    if isinstance(path, RemotePath):  # as if the store were a folder of this machine
        return Path("/", *path.url.split("://"))
    return Path(os.path.normpath(path.absolute()))


URL = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
RESOURCES = ("deployments", "media", "observations")
Stay = tuple[Deployment, datetime, datetime]  # of a recorder at a place: from, until
_UNTOLD = {
    "title": "Animal sounds found by a model in field recordings",
    "description": (
        "Before publishing, complete title, contributors, licenses and project: what stands there"
        " only fills what the standard requires."
    ),
    "contributors": [{"title": "not stated"}],
    "project": {
        "title": "not stated",
        "samplingDesign": "opportunistic",  # what claims least
        "captureMethod": ["timeLapse"],  # by the clock, and not because something moved
        "individualAnimals": False,
        "observationLevel": ["media"],
    },
    "keywords": ["bioacoustics", "passive acoustic monitoring"],
}


def describe(stays: Iterable[Stay], taxa: Iterable[str], before: dict[str, Any]) -> dict[str, Any]:
    """The descriptor; ``before`` is the one that lies there, {} where there is none."""
    told = list(stays)
    start, stop = min(stay[1] for stay in told), max(stay[2] for stay in told)
    listed = before.get("taxonomic")
    known = {
        taxon.get("scientificName"): taxon
        for taxon in (listed if isinstance(listed, list) else [])
        if isinstance(taxon, dict)
    }
    return {
        **_UNTOLD,
        **before,
        "profile": f"{URL}/camtrap-dp-profile.json",
        "created": stop.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "sources": [{"title": "antpitta", "version": version("antpitta")}],
        "spatial": _spatial([place for place, _, _ in told]),
        "temporal": {"start": start.date().isoformat(), "end": stop.date().isoformat()},
        "taxonomic": [known.get(name, {"scientificName": name}) for name in sorted(taxa)],
        "resources": [_resource(name) for name in RESOURCES],
    }


def _spatial(deployments: list[Deployment]) -> dict[str, Any]:
    """GeoJSON: the point, or the box around all of them."""
    west, east = (edge(place.longitude for place in deployments) for edge in (min, max))
    south, north = (edge(place.latitude for place in deployments) for edge in (min, max))
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


Row = tuple[Any, ...]
Rows = list[Row]

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
MEDIATYPES = {  # IANA's names, where it has one
    ".wav": "audio/vnd.wave",
    ".w64": "audio/x-w64",
    ".flac": "audio/flac",
    ".au": "audio/basic",
    **dict.fromkeys((".mp3", ".mpga"), "audio/mpeg"),
    **dict.fromkeys((".ogg", ".oga", ".opus"), "audio/ogg"),
    **dict.fromkeys((".aif", ".aiff"), "audio/x-aiff"),
}


def deployment_row(place: Deployment, start: datetime, stop: datetime) -> Row:
    """The stay of a recorder at a site."""
    told = {
        "deploymentID": place.site,
        "locationID": place.site,
        "locationName": place.site,
        "latitude": place.latitude,
        "longitude": place.longitude,
        "coordinateUncertainty": place.uncertainty,
        "deploymentStart": _second(start),
        "deploymentEnd": _second(stop, up=True),
    }
    return _row(told, DEPLOYMENTS)


def medium_row(medium: Medium) -> Row:
    """A recording."""
    one = medium.one
    notes = [f"duration: {one.seconds:.3f} s", one.reason.removeprefix(f"{one.path}: ")]
    told = {
        "mediaID": medium.id,
        "deploymentID": medium.place.site,
        "timestamp": _second(medium.began),
        "filePath": medium.id,
        "filePublic": "false",
        "fileName": one.path.name,
        "fileMediatype": MEDIATYPES[one.path.suffix.lower()],
        "mediaComments": "; ".join(note for note in notes if note),
    }
    return _row(told, MEDIA)


def observation_row(medium: Medium, event: EventRow) -> Row:
    """An event in a recording."""
    start, stop, low, high, species, score, model = event
    told = {
        "observationID": f"{medium.id}#t={start:.3f},{stop:.3f}&{species}",
        "deploymentID": medium.place.site,
        "mediaID": medium.id,
        "eventStart": _second(medium.at(start)),
        "eventEnd": _second(medium.at(stop), up=True),
        "observationLevel": "media",
        "observationType": "animal",
        "scientificName": species,
        "classificationMethod": "machine",
        "classifiedBy": model,
        "classificationProbability": score,
        "observationTags": (
            f"start:{start:.3f}|end:{stop:.3f}|frequencyLow:{low:.1f}|frequencyHigh:{high:.1f}"
        ),
    }
    return _row(told, OBSERVATIONS)


def _row(told: dict[str, Any], columns: Sequence[str]) -> Row:
    return tuple(told.get(name) for name in columns)


def _second(moment: datetime, *, up: bool = False) -> str:
    """ISO 8601 with its zone, as the standard wants it."""
    if up and moment.microsecond:
        moment = (moment.astimezone(UTC) + timedelta(seconds=1)).astimezone(moment.tzinfo)
    return moment.isoformat(timespec="seconds")


NAME = "camtrapdp"  # of the format, and of the folder in the output
UNPLACED = "unplaced.csv"


@dataclass
class PackageParts:
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


def write_package(parts: Parts, out: Path, survey: DeploymentInfo) -> PackageParts:
    """OUT/camtrapdp, and OUT/unplaced.csv: file, reason of all recordings that are not in it.

    Where none is in it there is no package, the standard knows no empty one.
    """
    folder = out / NAME
    remove_unfinished(folder)
    packed = PackageParts()
    targets = {folder / "media.csv": MEDIA, folder / "observations.csv": OBSERVATIONS,
               out / UNPLACED: ("file", "reason")}  # fmt: skip
    with ExitStack() as stack:
        unfinished = [stack.enter_context(atomic_replace(target)) for target in targets]
        for i, part in enumerate(or_empty_table(parts())):
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


def _tables(
    part: list[JournalEntry], survey: DeploymentInfo, packed: PackageParts
) -> tuple[Rows, Rows, Rows]:
    """Of media, observations and what is left out; all are counted in ``packed``."""
    media: Rows = []
    observations: Rows = []
    unplaced: Rows = []
    for one in part:
        medium = locate_recording(one, survey)
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
