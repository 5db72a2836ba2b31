"""Where and when a recording was made, from its name and from the metadata in its file.

This module is the only reader of clocks and sites in names.

- Time: GUANO's timestamp, else the comment that AudioMoth writes or the fields of Frontier Labs,
  else the file's name, else the origination of a Broadcast Wave, which may be that of an edited
  copy. It has a time zone only where the source names one. AudioMoth's early names
  and comments are UTC.
- What is not understood is a problem that `check` reports, and is not used in part: a timestamp
  with an impossible zone is no timestamp. A header and a name that disagree are a problem too.
- Site: the station in GUANO, else the text before the time in the file's name (a station, or a
  recorder's serial number), else GUANO's position, else the folder, else the AudioMoth's id.
  A position is rounded to three decimals (about 100 m), so that the jitter of a receiver makes
  no new site. The folder is left to the caller, which sees all files.
- A name without a time gives no site: ``clip_17`` is not a station.
"""

import re
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path, PurePath, PurePosixPath

from antpitta.core.errors import machine_failure
from antpitta.files.audio_length import read_vorbis_comments
from antpitta.files.wav_chunks import left_out_seconds, read_wav_chunks

_TIME = re.compile(
    r"(?<!\d)(?P<time>(?:\d{8}|\d{4}[-_.]\d{2}[-_.]\d{2})[_$ T-]?"
    r"(?:\d{6}|\d{4}|\d{2}[-_.:h]\d{2}(?:[-_.:m]\d{2})?))(?!\d)"
    r"(?:\.(?P<fraction>\d{1,6})(?=[Z+-]))?"
    r"(?P<zone>Z(?![A-Za-z])|_?[+-]\d{2}:?\d{2}(?!\d)|(?<=T\d{6})[+-]\d{2}(?!\d)"
    r"|_?(?:UTC|GMT)(?:[+-]\d{1,2}(?::?\d{2})?)?(?![A-Za-z\d]))?"
)
_SOUNDTRAP = re.compile(r"\d{3,10}\.(\d{12})")  # serial number, then a year of two digits
_TIME_RANGE = re.compile(r"S\d{8}T\d{6}.*_E\d{8}T\d{6}")  # Frontier Labs: start and end
# The names of early AudioMoths: seconds since 1970. Eight digits without a letter are an id.
_HEX_SECONDS = re.compile(r"(?=.*[A-F])[0-9A-F]{8}")
_CHANNELS = re.compile(
    r"(?:^|[_-])(0\+1|[01][-+]|[-+][01]|_[01])[_-]*$"
)  # Song Meter's, before the time
_AUDIOMOTH_COMMENT = re.compile(
    r"Recorded at (\d{2}:\d{2}:\d{2})(?:\.\d+)? (\d{2}/\d{2}/\d{4})"
    r"(?: \(UTC([+-]\d+)?(?::(\d{2}))?\))?(?=[ .]|$)(?:.*?AudioMoth ([0-9A-F]{8,16}))?"
)
_DAY_FOLDER_NAME = re.compile(r"\d{6}T")  # AudioMoth's, triggered, in a folder for each day
# Frontier Labs: "[-27.1 153.2]", or "-27.12345+153.23456" at the end
_POSITION = re.compile(
    r"(?:\[|_)([+-]?\d{1,2}\.\d+)[ ,]*([+-]\d{1,3}\.\d+|(?<=[ ,])\d{1,3}\.\d+)(?:\]|$)"
)
_LIKE_A_TIME = re.compile(  # with a year, month, day and clock that only a calendar refuses
    r"(?<!\d)[1-9]\d{3}(?:0\d|1[0-2])(?:[0-2]\d|3[01])[_$T-](?:[01]\d|2[0-4])[0-5]\d[0-6]\d(?!\d)"
)
_TRIGGERED_NAME = re.compile(r"\d{6}T")  # AudioMoth's, with an amplitude or frequency trigger
_TRIGGERED_COMMENT = re.compile(r"(?i)\b(threshold|trigger)")
_TIMESTAMP = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})[T ](\d{2}):?(\d{2}):?(\d{2})(?:[.,](\d+))?"
    r"\s*(Z|[+-]\d{2}(?::?\d{2})?)?"
)
_GENERIC_FOLDER = re.compile(
    r"(data|audio|wavs?|flac|mp3|ogg|raw|sounds?|recordings?|\d{3}media"
    r"|\d{4}([-_.]?\d{2}){0,2})",  # or a date
    re.IGNORECASE,
)
_STATION_KEYS = ("WA|Song Meter|Prefix", "WA|Prefix", "Station", "Site")
_WAMD_SERIAL, _WAMD_STATION, _WAMD_TIME, _WAMD_POSITION = 2, 4, 5, 6  # numbers of fields
_WAMD_PLACE = re.compile(r"(\d+\.\d+),([NS]),(\d+\.\d+),([EW])")
PLAUSIBLE_YEARS = range(1990, 2100)
_AUDIOMOTH_YEARS = range(2015, 2050)
_ORIGINATION = slice(320, 338)  # bytes of a Broadcast Wave's chunk: date and time
_AGREEMENT = timedelta(minutes=1)  # between the clock of a header and that of a name


@dataclass(frozen=True)
class RecordingMetadata:
    """Where and when a recording was made; None where the source has no answer.

    Parameters
    ----------
    site : recorder or location
    recorded_at : with a time zone only where the source names one
    recorder : the site only where nothing better is known
    problems : what the sources hold and cannot be understood, and where they disagree
    triggered : the recorder left out sound below a threshold, so that times in the file are not
        clock times
    left_out : seconds that it left out, as far as the file tells
    position : latitude and longitude, the site where no station is named
    origination : time of a Broadcast Wave, which is `recorded_at` where nothing else gives one
    """

    site: str | None = None
    recorded_at: datetime | None = None
    recorder: str | None = None
    problems: tuple[str, ...] = ()
    triggered: bool = False
    left_out: float = 0.0
    position: str | None = None
    origination: datetime | None = None


def read_metadata(path: Path) -> RecordingMetadata:
    """Read site and time from a file's metadata and name; its folder is not used.

    A file that cannot be opened is judged by its name. So is one with broken metadata, which is
    one of the problems.

    Parameters
    ----------
    path : file of sound

    Returns
    -------
    metadata : None for each field that is not known
    """
    from_name = metadata_from_name(path.name)
    try:
        from_header = _read_header(path)
    except OSError as error:
        if failure := machine_failure(error, path):
            raise failure from error
        return from_name
    except Exception as error:  # metadata of any kind of damage leaves the sound usable
        problem = f"its metadata cannot be read ({type(error).__name__})"
        return replace(from_name, problems=(*from_name.problems, problem))
    problems = (*from_header.problems, *from_name.problems)
    header_time, name_time = from_header.recorded_at, from_name.recorded_at
    if header_time and name_time and not _agree(header_time, name_time):
        problems += (f"its header gives {header_time}, its name {name_time}",)
    if from_header.site and from_name.site and not _same_site(from_header, from_name.site):
        problems += (f"its header gives the site {from_header.site}, its name {from_name.site}",)
    recorded_at = header_time or name_time or from_header.origination
    if recorded_at and from_header.origination and not _agree(recorded_at, from_header.origination):
        problems += (f"its bext chunk gives {from_header.origination}, it is of {recorded_at}",)
    triggered = from_header.triggered or from_name.triggered
    left_out = _left_out(path) if triggered else 0.0
    position = from_header.position or from_name.position
    return RecordingMetadata(
        from_header.site or from_name.site or position,
        None if left_out else recorded_at,
        from_header.recorder,
        problems,
        triggered,
        left_out,
        position,
    )


def _same_site(header: RecordingMetadata, name: str) -> bool:
    """Whether a name means the site, or the recorder, of a header."""
    plain = [re.sub(r"[\W_]+", "", text).casefold() for text in (header.site or "", name)]
    return plain[0] == plain[1] or name.casefold() == (header.recorder or "").casefold()


def _left_out(path: Path) -> float:
    """The seconds of silence that a triggered recorder left out of a WAV file."""
    try:
        return left_out_seconds(path, read_wav_chunks(path))
    except (OSError, ValueError):
        return 0.0


def _read_header(path: Path) -> RecordingMetadata:
    """What the file itself has: GUANO before AudioMoth's comment, or the comments of a FLAC."""
    if path.suffix.lower() == ".flac":
        return _parse_vorbis(read_vorbis_comments(path))
    chunks = read_wav_chunks(path)
    comment = metadata_from_comment(chunks.comment)
    guano, wamd = _parse_guano(chunks.guano), _parse_wamd(chunks.wamd)
    problems = (*guano.problems, *comment.problems, *wamd.problems)
    for other in map(_parse_guano, chunks.more_guano):
        if (other.site, other.recorded_at) != (guano.site, guano.recorded_at):
            problems += ("it has several GUANO chunks that disagree, and the last is used",)
    sources = {"GUANO": guano, "WAMD": wamd, "comment": comment}
    times = [(name, part.recorded_at) for name, part in sources.items() if part.recorded_at]
    for name, time in times[1:]:
        if not _agree(times[0][1], time):
            problems += (f"its {times[0][0]} gives {times[0][1]}, its {name} {time}",)
    return RecordingMetadata(
        guano.site or wamd.site,
        times[0][1] if times else None,
        comment.recorder or guano.recorder or wamd.recorder,
        problems,
        comment.triggered,
        position=guano.position or wamd.position,
        origination=_parse_origination(chunks.bext),
    )


def _parse_origination(bext: bytes) -> datetime | None:
    """The time in the chunk of a Broadcast Wave, which has no zone; None for a placeholder."""
    digits = re.sub(r"\D", "", bext[_ORIGINATION].decode("ascii", "replace"))
    return _parse_time(digits, "", "") if len(digits) == 14 else None


def _agree(header: datetime, name: datetime) -> bool:
    """Whether two clocks may be the same: a name without a zone may be local time or UTC."""
    if header.tzinfo and name.tzinfo:
        return abs(header - name) <= _AGREEMENT
    clocks = [(header.replace(tzinfo=None), name.replace(tzinfo=None))]
    if header.tzinfo:
        clocks.append((header.astimezone(UTC).replace(tzinfo=None), name))
    if name.tzinfo:
        clocks.append((header, name.astimezone(UTC).replace(tzinfo=None)))
    return any(abs(first - second) <= _AGREEMENT for first, second in clocks)


def metadata_from_name(name: str) -> RecordingMetadata:
    """Site and time from the name or path of a file, with or without its suffix.

    Understands ``20190522_053000`` with any of ``_$ T-`` in between, dashed dates and times
    (``2019-05-22T05-30``), a time zone behind the time, the position that Frontier Labs writes, and
    the hexadecimal seconds of early AudioMoths. A time of no calendar, such as 30 February, or of
    a year before 1990, is a problem.

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
    if match := _SOUNDTRAP.fullmatch(stem):
        return RecordingMetadata(stem.partition(".")[0], _parse_time("20" + match[1], "", ""))
    position = _position_in_name(stem)
    for match in _TIME.finditer(stem):
        zone = (match["zone"] or "").lstrip("_").replace("GMT", "UTC")
        if recorded_at := _parse_time(match["time"], match["fraction"] or "", zone):
            before = _CHANNELS.sub("", stem[: match.start()].rstrip(" _.$"))
            site = None if _TIME_RANGE.match(stem) else before.strip(" _-.$+") or None
            triggered = bool(_TRIGGERED_NAME.fullmatch(stem[match.end() - 6 :]))
            unknown_zone = bool(zone.strip("Z")) and recorded_at.tzinfo is None
            problems = (f"the time zone {zone} in its name is none",) if unknown_zone else ()
            if unknown_zone and zone[0] == "+":  # no running number: the time is not to be trusted
                return RecordingMetadata(site, None, None, problems, triggered)
            return RecordingMetadata(site, recorded_at, triggered=triggered, position=position)
    return _without_time(stem)


def _without_time(stem: str) -> RecordingMetadata:
    """What a name holds whose time, if it has any, is in no calendar."""
    if match := _LIKE_A_TIME.search(stem):
        site = _CHANNELS.sub("", stem[: match.start()].rstrip(" _.$")).strip(" _-.$+") or None
        problem = f"{match[0]} in its name is no time of a recording"
        return RecordingMetadata(site, problems=(problem,))
    return RecordingMetadata(triggered=bool(_DAY_FOLDER_NAME.fullmatch(stem)))


def _position_in_name(stem: str) -> str | None:
    match = _POSITION.search(stem)
    return _plain_position(*map(float, match.groups())) if match else None


def _plain_position(latitude: float, longitude: float) -> str | None:
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    return f"{latitude:.3f} {longitude:.3f}"


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
    triggered = bool(_TRIGGERED_COMMENT.search(comment)) and "AudioMoth" in comment
    if not (match := _AUDIOMOTH_COMMENT.search(comment)):
        problem = "AudioMoth's comment has no time that can be read"
        is_audiomoth = "Recorded at" in comment and "AudioMoth" in comment
        return RecordingMetadata(problems=(problem,) * is_audiomoth, triggered=triggered)
    clock, day, hours, minutes, recorder = match.groups()
    sign = "-" if (hours or "").startswith("-") else "+"
    zone = f"{sign}{int((hours or '0').lstrip('+-')):02}{int(minutes or 0):02}"
    try:
        recorded_at = datetime.strptime(f"{clock} {day}", "%H:%M:%S %d/%m/%Y")
        if recorded_at.year not in PLAUSIBLE_YEARS:
            raise ValueError(f"the year {recorded_at.year}")
        recorded_at = recorded_at.replace(tzinfo=_parse_zone(zone))
    except ValueError as error:
        problem = f"the time in AudioMoth's comment is none ({error})"
        return RecordingMetadata(None, None, recorder, (problem,), triggered)
    return RecordingMetadata(None, recorded_at, recorder, (), triggered)


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


def _parse_time(text: str, fraction: str, zone: str) -> datetime | None:
    """The time of 12 or 14 digits; None where they are no time, such as one with month 13."""
    digits = re.sub(r"\D", "", text).ljust(14, "0")
    try:
        recorded_at = datetime.strptime(digits, "%Y%m%d%H%M%S")
    except ValueError:
        return None
    if recorded_at.year not in PLAUSIBLE_YEARS:
        return None
    recorded_at = recorded_at.replace(microsecond=int(fraction.ljust(6, "0") or 0))
    try:
        return recorded_at.replace(tzinfo=_parse_zone(zone) if zone else None)
    except ValueError:  # not a time zone: a running number
        return recorded_at


def _parse_zone(text: str) -> timezone:
    """The zone of ``Z``, ``UTC``, ``UTC-5``, ``+10``, ``-0330`` or ``+05:30``."""
    text = text.removeprefix("UTC")
    if text in ("", "Z"):
        return UTC
    digits = text[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if minutes % 15 or minutes > 45 or hours > 14:
        raise ValueError(f"the time zone {text}")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset) if offset else UTC


def _parse_timestamp(text: str) -> datetime:
    """A timestamp of ISO 8601; ValueError for anything else, and for years of no recorder."""
    if not (match := _TIMESTAMP.fullmatch(text.strip())):
        raise ValueError("no date and time")
    *parts, fraction, zone = match.groups()
    year, month, day, hour, minute, second = map(int, parts)
    if year not in PLAUSIBLE_YEARS:
        raise ValueError(f"the year {year}")
    microsecond = int((fraction or "0").ljust(6, "0")[:6])
    recorded_at = datetime(year, month, day, hour, minute, second, microsecond)
    return recorded_at.replace(tzinfo=_parse_zone(zone)) if zone else recorded_at


def _parse_wamd(chunk: bytes) -> RecordingMetadata:
    """Station, position and time of a WAMD chunk: numbered fields, each with its length."""
    fields: dict[int, str] = {}
    at = 0
    while at + 6 <= len(chunk):
        number, size = struct.unpack_from("<HI", chunk, at)
        fields.setdefault(
            number, chunk[at + 6 : at + 6 + size].decode("utf-8", "replace").strip("\0 ")
        )
        at += 6 + size
    problems: tuple[str, ...] = ()
    recorded_at = None
    if text := fields.get(_WAMD_TIME):
        try:
            recorded_at = _parse_timestamp(text)
        except ValueError as error:
            problems = (f"the time {text!r} in its WAMD metadata is none ({error})",)
    match = _WAMD_PLACE.search(fields.get(_WAMD_POSITION, ""))
    position = None
    if match:
        signs = [-1 if match[i] in "SW" else 1 for i in (2, 4)]
        position = _plain_position(signs[0] * float(match[1]), signs[1] * float(match[3]))
    site, recorder = fields.get(_WAMD_STATION) or None, fields.get(_WAMD_SERIAL) or None
    return RecordingMetadata(site, recorded_at, recorder, problems, position=position)


def _parse_guano(chunk: bytes) -> RecordingMetadata:
    """Station, position and time of a GUANO chunk."""
    lines = chunk.rstrip(b"\0").decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    fields = {key.strip(): value.strip() for key, colon, value in pairs if colon}
    problems: tuple[str, ...] = ()
    if chunk.strip(b"\0 \r\n") and not fields:
        problems = ("its GUANO metadata cannot be read",)
    station = next((fields[key] for key in _STATION_KEYS if fields.get(key)), None)
    position, recorded_at = None, None
    if (text := fields.get("Loc Position")) is not None:
        try:
            latitude, longitude = map(float, text.replace(",", " ").split())
            if (position := _plain_position(latitude, longitude)) is None:
                raise ValueError("no place on Earth")
        except ValueError:
            problems += (f"the position {text!r} in its GUANO metadata is none",)
    if text := fields.get("Timestamp"):
        try:
            recorded_at = _parse_timestamp(text)
        except ValueError as error:
            problems += (f"the time {text!r} in its GUANO metadata is none ({error})",)
    return RecordingMetadata(
        station, recorded_at, fields.get("Serial") or None, problems, position=position
    )


def _parse_vorbis(comments: dict[str, str]) -> RecordingMetadata:
    """Time and recorder of a FLAC: Frontier Labs' fields, or the comment that AudioMoth wrote."""
    for key in ("COMMENT", "DESCRIPTION", "ICMT"):
        comment = metadata_from_comment(comments.get(key, ""))
        if comment != RecordingMetadata():
            return RecordingMetadata(
                None, comment.recorded_at, comment.recorder, comment.problems, comment.triggered
            )
    if guano := comments.get("GUANO"):
        return _parse_guano(guano.encode())
    if not (text := comments.get("RECORDINGSTART")):
        return RecordingMetadata()
    recorder = comments.get("SENSORUID") or None
    try:
        return RecordingMetadata(None, _parse_timestamp(text), recorder)
    except ValueError as error:
        problem = f"RecordingStart {text!r} in its header is no time ({error})"
        return RecordingMetadata(None, None, recorder, (problem,))
