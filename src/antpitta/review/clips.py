"""Sound and picture of detections as files, for those who want files.

    CLIPS/clips.csv                        one row a clip, with an empty verdict
    CLIPS/<species>/<score>_<recording>_<start>s.wav, .png

The table has the columns of an annotation table: filled in, it can be trained on as it is.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from antpitta.core.errors import UserError
from antpitta.files.audio import UnreadableAudio
from antpitta.files.manifest import replace_files
from antpitta.files.tables import write_csv
from antpitta.review.library import AudioLibrary
from antpitta.review.media import ImageSize, RegionPainter, cut_region, cut_sound

TABLE = "clips.csv"
COLUMNS = (
    *("clip", "file", "start_time", "end_time", "low_freq", "high_freq", "species", "score"),
    "verdict",
)
SIZE = ImageSize(640, 320)
_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST = 80  # characters of a part of a name


@dataclass(frozen=True)
class ClipsResult:
    """What was written.

    Parameters
    ----------
    clips : paths of the sounds below the folder
    species : how many have clips
    left_out : file and reason of detections without a clip
    """

    clips: tuple[str, ...]
    species: int
    left_out: tuple[tuple[str, str], ...]


def write_clips(
    detections: Iterable[Mapping[str, Any]],
    library: AudioLibrary,
    painter: RegionPainter,
    folder: Path,
    margin: float,
) -> ClipsResult:
    """Write a clip and a picture of each detection.

    Parameters
    ----------
    detections : rows of a table of events
    library : where the recordings are
    painter : draws the pictures
    folder : new, or one that holds earlier clips, which are replaced
    margin : seconds before and after each detection

    Returns
    -------
    result : of all detections

    Raises
    ------
    UserError
        E_OUTPUT_EDITED, E_OUTPUT_NOT_WRITABLE.
    """
    rows, left_out = [], Counter[tuple[str, str]]()
    names: Counter[str] = Counter()
    with replace_files(folder, "clips", complete=True) as unfinished:
        for detection in detections:
            try:
                recording = library.find(str(detection["file"]))
                start, stop = float(detection["start_time"]), float(detection["end_time"])
                cut = cut_region(recording, start, stop, margin)
                wav, png = cut_sound(cut), painter.draw(cut, "full", SIZE).png
            except UserError as error:
                left_out[str(detection["file"]), error.what] += 1
                continue
            except UnreadableAudio as error:
                left_out[str(detection["file"]), str(error)] += 1
                continue
            name = _name(detection, names)
            (unfinished / name).parent.mkdir(exist_ok=True)
            (unfinished / f"{name}.wav").write_bytes(wav)
            (unfinished / f"{name}.png").write_bytes(png)
            rows.append((f"{name}.wav", *(detection[column] for column in COLUMNS[1:-1]), ""))
        write_csv(pd.DataFrame(rows, columns=COLUMNS), unfinished / TABLE)
    clips = tuple(str(row[0]) for row in rows)
    return ClipsResult(clips, len({row[6] for row in rows}), tuple(left_out))


def _name(detection: Mapping[str, Any], names: Counter[str]) -> str:
    """The path of a clip without its suffix; no two clips have one path, in any case of letters."""
    recording = _safe(Path(str(detection["file"])).stem)
    name = f"{detection['score']:.3f}_{recording}_{detection['start_time']:.2f}s"
    name = f"{_safe(str(detection['species']))}/{name}"
    names[name.lower()] += 1
    count = names[name.lower()]
    return name if count == 1 else f"{name}_{count}"


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text)[:_LONGEST].strip("._") or "_"
