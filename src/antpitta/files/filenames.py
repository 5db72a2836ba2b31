"""What a file's name tells: whose table it is, and when a recording began."""

import re
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

_TABLE_TAILS = re.compile(
    r"(\.birdnet\.(results|selection\.table)|[._ -]selections?([._ -]table)?|\.table[._ ]?\d*"
    r"|[._ -](labels?|annotations?))$",
    re.IGNORECASE,
)
_BEGAN = re.compile(
    r"(?<!\d)(\d{4})[-_]?(\d\d)[-_]?(\d\d)[T_ -]?(\d\d)[-_:.h]?(\d\d)(?:[-_:.m]?(\d\d))?(?!\d)"
)
_AUDIOMOTH = re.compile(r"[0-9A-F]{8}")  # its early file names: seconds since 1970, in hex


def base_name(name: str) -> str:
    """The file's own name, whichever system's path it comes in."""
    return PurePosixPath(name.replace("\\", "/")).name


def recording_from_table_name(path: Path) -> str:
    """The recording that a table without a file column speaks of, from the table's name.

    ``dawn.Table.1.selections.txt`` and ``dawn.BirdNET.results.csv`` both speak of ``dawn``.
    """
    name = re.sub(r"\.(txt|csv|tsv)$", "", path.name, flags=re.IGNORECASE)
    while (shorter := _TABLE_TAILS.sub("", name)) and shorter != name:
        name = shorter
    return name


def start_from_name(recording: str) -> datetime | None:
    """When the recording began by its name's own clock, or None where the name has no time."""
    name = base_name(recording)
    for found in _BEGAN.finditer(name):
        try:
            return datetime(*(int(part or 0) for part in found.groups()))  # type: ignore[arg-type]
        except ValueError:  # a month 13: the digits mean something else
            continue
    stem = name.rsplit(".", 1)[0]
    if _AUDIOMOTH.fullmatch(stem):
        when = datetime.fromtimestamp(int(stem, 16), UTC).replace(tzinfo=None)
        return when if 2010 <= when.year < 2050 else None
    return None
