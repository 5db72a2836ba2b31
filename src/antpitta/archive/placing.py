"""Where and when a recording was made, or what is lacking to say so.

A place comes from the table of places or from the file, a time from the file, its zone from either;
a recording that lacks one of them is told apart by the word before the colon.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from antpitta.archive.journal import Entry
from antpitta.files.audio import SUFFIXES
from antpitta.files.places import Place, Places
from antpitta.files.remote import Location, RemotePath

_UNFIT = re.compile(r"^[./~]|(?<=\.)\.|[%\r\n]")  # what the standard bars from a path, and %


@dataclass(frozen=True)
class Survey:
    """What a package needs beyond what was heard: where the sites lie, and its paths begin."""

    places: Places
    home: Path


class Medium(NamedTuple):
    """A recording whose place and time are known."""

    one: Entry
    place: Place
    began: datetime  # aware of its zone
    id: str  # its path below home

    def at(self, seconds: float) -> datetime:
        """By the recorder's clock, also where that was put forward meanwhile."""
        moment = self.began.astimezone(UTC) + timedelta(seconds=seconds)
        return moment.astimezone(self.began.tzinfo)


def home_of(roots: Sequence[Location]) -> Path:
    """The innermost folder that holds all of these folders and files."""
    folders = [_whole(root.parent if _is_file(root) else root) for root in roots]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives
        return Path()


def locate(one: Entry, survey: Survey) -> Medium | str:
    """When and where; or what is lacking, a colon, and the particulars."""
    whole = _whole(one.path)
    inside = whole.is_relative_to(survey.home)
    below = whole.relative_to(survey.home if inside else whole.anchor)
    place = survey.places.find(one.site, [survey.home.name, *below.parts[:-1]])
    if place is None and one.site is None:
        return "no site: neither the file nor its folder names one of the table of places"
    if place is None:
        return f"no place: site {one.site!r} is not in the table of places"
    if one.began is None:
        return "no time: neither the file nor its name tells when it began"
    began = datetime.fromisoformat(one.began)
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
