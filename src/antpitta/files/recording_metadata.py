"""Where and when a recording was made, from its name and from the metadata in its file.

This module is the only reader of clocks and sites in names.

- Time: GUANO's timestamp, else the comment that AudioMoth writes, else the file's name. It has a
  time zone only where the source names one. AudioMoth's early names are UTC.
- Site: the station in GUANO, else the text before the time in the file's name (a station, or a
  recorder's serial number), else GUANO's position, else the folder, else the AudioMoth's id.
  A position is rounded to three decimals (about 100 m), so that the jitter of a receiver makes
  no new site. The folder is left to the caller, which sees all files.
- A name without a time gives no site: ``clip_17`` is not a station.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePath, PurePosixPath

from guano import GuanoFile

from antpitta.files.wav_chunks import read_wav_chunks

_TIME = re.compile(
    r"(?<!\d)(?P<time>(?:\d{8}|\d{4}[-_.]\d{2}[-_.]\d{2})[_$ T-]?"
    r"(?:\d{6}|\d{4}|\d{2}[-_.:h]\d{2}(?:[-_.:m]\d{2})?))(?!\d)"
    r"(?P<zone>Z(?![A-Za-z])|[+-]\d{2}:?\d{2}(?!\d))?"
)
# The names of early AudioMoths: seconds since 1970. Eight digits without a letter are an id.
_HEX_SECONDS = re.compile(r"(?=.*[A-F])[0-9A-F]{8}")
_CHANNELS = re.compile(r"[_-](0\+1|[01][-+]|[-+][01])[_-]*$")  # Song Meter's, before the time
_AUDIOMOTH_COMMENT = re.compile(
    r"Recorded at (\d{2}:\d{2}:\d{2})(?:\.\d+)? (\d{2}/\d{2}/\d{4}) \(UTC([+-]\d+)?(?::(\d{2}))?\)"
    r"(?:.*?AudioMoth ([0-9A-F]{8,16}))?"
)
_GENERIC_FOLDER = re.compile(
    r"(data|audio|wavs?|flac|mp3|ogg|raw|sounds?|recordings?|\d{3}media"
    r"|\d{4}([-_.]?\d{2}){0,2})",  # or a date
    re.IGNORECASE,
)
_STATION_KEYS = ("WA|Song Meter|Prefix", "WA|Prefix", "Station", "Site")
_PLAUSIBLE_YEARS = range(1990, 2100)
_AUDIOMOTH_YEARS = range(2015, 2050)


@dataclass(frozen=True)
class RecordingMetadata:
    """Where and when a recording was made; None where the source has no answer."""

    site: str | None = None
    recorded_at: datetime | None = None
    recorder: str | None = None  # the site only where nothing better is known


def read_metadata(path: Path) -> RecordingMetadata:
    """Read site and time from a file's metadata and name; its folder is not used.

    A file that cannot be opened, or that has broken metadata, is judged by its name.

    Parameters
    ----------
    path : file of sound

    Returns
    -------
    metadata : None for each field that is not known
    """
    from_name = metadata_from_name(path.name)
    if path.suffix.lower() != ".wav":
        return from_name
    try:
        chunks = read_wav_chunks(path)
    except OSError:
        return from_name
    from_comment = metadata_from_comment(chunks.comment)
    station, position, timestamp = _parse_guano(chunks.guano)
    return RecordingMetadata(
        station or from_name.site or position,
        timestamp or from_comment.recorded_at or from_name.recorded_at,
        from_comment.recorder,
    )


def metadata_from_name(name: str) -> RecordingMetadata:
    """Site and time from the name or path of a file, with or without its suffix.

    Understands ``20190522_053000`` with any of ``_$ T-`` in between, dashed dates and times
    (``2019-05-22T05-30``), a time zone behind the time, and the hexadecimal seconds of early
    AudioMoths.

    Parameters
    ----------
    name : file name or path

    Returns
    -------
    metadata : site and time; all None where the name has no time

    Examples
    --------
    >>> metadata_from_name("S4A03895_20190522$053000.wav").site
    'S4A03895'
    >>> metadata_from_name("69C0F3A0.WAV").recorded_at.isoformat()
    '2026-03-23T08:02:40+00:00'
    """
    stem = re.sub(r"\.[A-Za-z]\w{1,4}$", "", base_name(name))
    if _HEX_SECONDS.fullmatch(stem):
        seconds = datetime.fromtimestamp(int(stem, 16), UTC)
        return RecordingMetadata(recorded_at=seconds if seconds.year in _AUDIOMOTH_YEARS else None)
    for match in _TIME.finditer(stem):
        if recorded_at := _parse_time(match["time"], match["zone"] or ""):
            before = _CHANNELS.sub("", stem[: match.start()].rstrip(" _.$"))
            return RecordingMetadata(before.strip(" _-.$+") or None, recorded_at)
    return RecordingMetadata()


def metadata_from_comment(comment: str) -> RecordingMetadata:
    """Time and recorder from an AudioMoth's comment (ICMT); nothing from any other comment.

    Parameters
    ----------
    comment : of a WAV file

    Returns
    -------
    metadata : time with its zone, and recorder

    Examples
    --------
    >>> comment = "Recorded at 05:15:00 07/06/2020 (UTC-5) by AudioMoth 24F319055FDF"
    >>> metadata_from_comment(comment).recorded_at.isoformat()
    '2020-06-07T05:15:00-05:00'
    """
    if not (match := _AUDIOMOTH_COMMENT.search(comment)):
        return RecordingMetadata()
    clock, day, hours, minutes, recorder = match.groups()
    offset = timedelta(hours=int(hours or 0))
    offset += timedelta(minutes=int(minutes or 0)) * (-1 if (hours or "").startswith("-") else 1)
    try:
        recorded_at = datetime.strptime(f"{clock} {day}", "%H:%M:%S %d/%m/%Y")
        return RecordingMetadata(None, recorded_at.replace(tzinfo=timezone(offset)), recorder)
    except ValueError:
        return RecordingMetadata(None, None, recorder)


def site_from_folder(folder: PurePath) -> str | None:
    """The innermost folder of a relative path that may name a site.

    Dates and names such as ``Data`` are passed over: many recorders create them.

    Parameters
    ----------
    folder : a path below the folder of all recordings

    Returns
    -------
    site : None where no folder may name one
    """
    return next((part for part in folder.parts[::-1] if not _GENERIC_FOLDER.fullmatch(part)), None)


def base_name(name: str) -> str:
    """The last part of a path, whichever system wrote it.

    Parameters
    ----------
    name : file name or path

    Returns
    -------
    name : without folders
    """
    return PurePosixPath(name.replace("\\", "/")).name


def _parse_time(text: str, zone: str) -> datetime | None:
    """The time of 12 or 14 digits; None where they are no time, such as one with month 13."""
    digits = re.sub(r"\D", "", text).ljust(14, "0")
    try:
        recorded_at = datetime.strptime(digits, "%Y%m%d%H%M%S")
    except ValueError:
        return None
    if recorded_at.year not in _PLAUSIBLE_YEARS:
        return None
    if zone == "Z":
        return recorded_at.replace(tzinfo=UTC)
    hours, minutes = zone[1:3], zone[-2:]
    if not zone or int(minutes) % 15 or int(hours) > 14:  # not a time zone: a running number
        return recorded_at
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return recorded_at.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset))


def _parse_guano(chunk: bytes) -> tuple[str | None, str | None, datetime | None]:
    """Station, position and time of a GUANO chunk."""
    if not chunk:
        return None, None, None
    try:
        guano = GuanoFile.from_string(chunk)
    except (ValueError, TypeError):  # a line without a colon, and the like
        return None, None, None
    station = next((str(guano.get(key)) for key in _STATION_KEYS if guano.get(key)), None)
    coordinates, timestamp = guano.get("Loc Position"), guano.get("Timestamp")
    position = None
    if isinstance(coordinates, tuple) and len(coordinates) == 2:
        position = f"{coordinates[0]:.3f} {coordinates[1]:.3f}"
    if isinstance(timestamp, str):  # the library does not parse tenths of a second
        try:
            timestamp = datetime.fromisoformat(timestamp.strip())
        except ValueError:
            timestamp = None
    if timestamp is not None and (offset := timestamp.utcoffset()) is not None:
        timestamp = timestamp.replace(tzinfo=UTC if not offset else timezone(offset))
    return station, position, timestamp
