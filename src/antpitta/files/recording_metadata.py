"""Where and when a recording was made, as far as its name and its own metadata tell.

- Time: GUANO's timestamp, else the comment that AudioMoth writes, else the file's name. It
  knows its zone only where the source names one; AudioMoth's early names are UTC.
- Site: the station's name in GUANO, else what stands before the time in the file's name (a
  station, or a recorder's serial number), else GUANO's position to three decimals (about
  100 m, so that a receiver's jitter makes no new site), else the folder, which only somebody
  knows who sees all files, else the AudioMoth that recorded it.
- A name without a time tells no site: ``clip_17`` is no station.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePath

from guano import GuanoFile

from antpitta.files.wav_chunks import read_wav_chunks

_COMPACT = re.compile(
    r"(?<!\d)(\d{4})(\d{2})(\d{2})(?:[_$ T-]?(\d{2})(\d{2})(\d{2})|[_$ T-](\d{2})(\d{2}))"
    r"(?!\d)(?P<zone>Z(?![A-Za-z])|[+-]\d{2}:?\d{2}(?!\d))?"
)
_DASHED = re.compile(
    r"(?<!\d)(\d{4})[-_.](\d{2})[-_.](\d{2})[-_ T](\d{2})[-_.:h](\d{2})(?:[-_.:m](\d{2}))?"
    r"(?!\d)(?P<zone>Z(?![A-Za-z])|[+-]\d{2}:?\d{2}(?!\d))?"
)
_HEX = re.compile(r"(?=.*[A-F])[0-9A-F]{8}")
_CHANNELS = re.compile(r"[_-](0\+1|[01][-+]|[-+][01])[_-]*$")  # Song Meter's, before the time
_MOTH = re.compile(
    r"Recorded at (\d{2}:\d{2}:\d{2})(?:\.\d+)? (\d{2}/\d{2}/\d{4}) \(UTC([+-]\d+)?(?::(\d{2}))?\)"
    r"(?:.*?AudioMoth ([0-9A-F]{8,16}))?"
)
_TELLS_NOTHING = re.compile(
    r"(data|audio|wavs?|flac|mp3|ogg|raw|sounds?|recordings?|\d{3}media"
    r"|\d{4}([-_.]?\d{2}){0,2})",  # or a date
    re.IGNORECASE,
)
_STATIONS = ("WA|Song Meter|Prefix", "WA|Prefix", "Station", "Site")
_PLAUSIBLE = (datetime(1990, 1, 1), datetime(2100, 1, 1))


@dataclass(frozen=True)
class RecordingMetadata:
    """Where and when; None where nobody says."""

    site: str | None = None
    recorded_at: datetime | None = None
    recorder: str | None = None  # the site only where nothing better is known


def read_metadata(path: Path) -> RecordingMetadata:
    """All that the file tells of itself; its folder left aside."""
    named = metadata_from_name(path.name)
    if path.suffix.lower() != ".wav":
        return named
    try:
        riff = read_wav_chunks(path)
    except OSError:
        return named
    moth = metadata_from_comment(riff.comment)
    station, position, stamp = _guano(riff.guano)
    site = station or named.site or position
    return RecordingMetadata(site, stamp or moth.recorded_at or named.recorded_at, moth.recorder)


def metadata_from_name(name: str) -> RecordingMetadata:
    """Site and time from a file's name, its suffix included or not.

    >>> origin_from_name("S4A03895_20190522_000000.wav")
    Origin(site='S4A03895', began=datetime.datetime(2019, 5, 22, 0, 0), recorder=None)
    """
    stem = re.sub(r"\.[A-Za-z]\w{1,4}$", "", name)
    if _HEX.fullmatch(stem):
        began = datetime.fromtimestamp(int(stem, 16), UTC)
        return (
            RecordingMetadata(recorded_at=began)
            if 2015 <= began.year < 2026
            else RecordingMetadata()
        )  # firmware of 2017 to 2019
    for pattern in (_COMPACT, _DASHED):
        for found in pattern.finditer(stem):
            if (when := _when(found)) is None:
                continue
            before = _CHANNELS.sub("", stem[: found.start()].rstrip(" _.$"))
            return RecordingMetadata(before.strip(" _-.$+") or None, when)
    return RecordingMetadata()


def metadata_from_comment(comment: str) -> RecordingMetadata:
    """Time and recorder from an AudioMoth's ICMT; none from any other comment.

    >>> origin_from_comment("Recorded at 05:15:00 07/06/2020 (UTC-5) by AudioMoth 24F319055FDF at")
    ... # doctest: +ELLIPSIS
    Origin(site=None, began=datetime.datetime(2020, 6, 7, 5, 15, ...), recorder='24F319055FDF')
    """
    if not (found := _MOTH.search(comment)):
        return RecordingMetadata()
    clock, day, hours, minutes, recorder = found.groups()
    offset = timedelta(hours=int(hours or 0))
    offset += timedelta(minutes=int(minutes or 0)) * (-1 if (hours or "").startswith("-") else 1)
    try:
        when = datetime.strptime(f"{clock} {day}", "%H:%M:%S %d/%m/%Y")
        return RecordingMetadata(None, when.replace(tzinfo=timezone(offset)), recorder)
    except ValueError:
        return RecordingMetadata(None, None, recorder)


def site_from_folder(folder: PurePath) -> str | None:
    """The innermost folder of a relative path that may name a site.

    Dates and names such as ``Data`` are passed over: many recorders make them by themselves.
    """
    return next((part for part in folder.parts[::-1] if not _TELLS_NOTHING.fullmatch(part)), None)


def _when(found: re.Match[str]) -> datetime | None:
    numbers = [int(part) for part in found.groups()[:-1] if part is not None]
    try:
        when = datetime(*numbers)  # type: ignore[arg-type]
    except ValueError:  # a month 13: the digits mean something else
        return None
    if not _PLAUSIBLE[0] <= when < _PLAUSIBLE[1]:
        return None
    zone = found["zone"] or ""
    if zone == "Z":
        return when.replace(tzinfo=UTC)
    digits = zone.replace(":", "")
    if not digits or int(digits[3:]) % 15 or int(digits[1:3]) > 14:
        return when
    offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:]))
    return when.replace(tzinfo=timezone(-offset if zone[0] == "-" else offset))


def _guano(chunk: bytes) -> tuple[str | None, str | None, datetime | None]:
    """Station, position and time of a GUANO chunk."""
    if not chunk:
        return None, None, None
    try:
        said = GuanoFile.from_string(chunk)
    except (ValueError, TypeError):  # a line without a colon, and the like
        return None, None, None
    station = next((str(said.get(key)) for key in _STATIONS if said.get(key)), None)
    place, stamp = said.get("Loc Position"), said.get("Timestamp")
    position = None
    if isinstance(place, tuple) and len(place) == 2:
        position = f"{place[0]:.3f} {place[1]:.3f}"
    if isinstance(stamp, str):  # the wheel leaves tenths of a second, and more, unread
        try:
            stamp = datetime.fromisoformat(stamp.strip())
        except ValueError:
            stamp = None
    if stamp is not None and (offset := stamp.utcoffset()) is not None:
        stamp = stamp.replace(tzinfo=UTC if not offset else timezone(offset))
    return station, position, stamp
