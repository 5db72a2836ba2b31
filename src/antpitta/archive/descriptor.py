"""datapackage.json of a Camtrap DP: what the tables are, and the place, time and taxa they span.

What antpitta cannot know (contributors, licences, the design of the sampling) is left to people:
the standard's required terms are filled with words that say so, and whatever somebody has written
into the file stays when it is written anew, the further terms of a taxon (rank, vernacular names)
too. What is counted from the tables is counted again.

``created`` is the end of the last recording: the hour of the run would tell a run that was
stopped from one that was not.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from antpitta.files.places import Place

URL = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
RESOURCES = ("deployments", "media", "observations")
Stay = tuple[Place, datetime, datetime]  # of a recorder at a place: from, until
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


def _spatial(places: list[Place]) -> dict[str, Any]:
    """GeoJSON: the point, or the box around all of them."""
    west, east = (edge(place.longitude for place in places) for edge in (min, max))
    south, north = (edge(place.latitude for place in places) for edge in (min, max))
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
