"""The three tables of a Camtrap DP: their columns, and what fills them from what is known.

- The standard's times are whole seconds: an event begins at the second that it begins in, and ends
  at the one that it ends before. Its exact seconds in the file, and its band in Hz, for which 1.0.2
  has no terms, are observationTags.
- Ids are made of the path below what was listened to, and of the seconds in the file: they stay
  what they are when more recordings come.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from antpitta.archive.journal import EventRow
from antpitta.archive.placing import Medium
from antpitta.files.places import Place

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


def deployment_row(place: Place, start: datetime, stop: datetime) -> Row:
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
