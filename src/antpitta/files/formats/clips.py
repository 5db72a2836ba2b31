"""One folder of clips per species, as BirdNET-Analyzer trains on.

- Each clip of ``<species>/`` is one box over the whole clip: the species is present. Other species
  are unknown there, not absent.
- ``Turdus merula_Common Blackbird`` is Turdus merula; ``wren, robin`` holds both. A folder that
  begins with ``-`` holds clips without the species. ``noise``, ``background``, ``other`` and
  ``silence`` hold no species at all; beside a species (``noise, wren``) they say nothing.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from antpitta.core.errors import Finding
from antpitta.core.types import EVERY_CLASS, Annotation
from antpitta.files.audio import SUFFIXES
from antpitta.files.formats.sheet import AnnotationTable, GivenVerdict, TableFormat
from antpitta.files.recording_metadata import site_from_folder

_NO_CLIPS = {"train", "test", "val", "validation"}  # folders of whole recordings
_NO_SPECIES = {"noise", "background", "other", "silence"}
_SCIENTIFIC = re.compile(r"([A-Z][a-z]+ [a-z-]+(?: [a-z-]+)?)_\S.*")


def is_clip_folder(folder: Path) -> bool:
    """Whether the folder holds one folder of clips per species, and no sound or table beside them.

    Parameters
    ----------
    folder : to look into

    Returns
    -------
    answer : True or False
    """
    return bool(_species_names(folder)) and explain_no_clip_folder(folder) is None


def explain_no_clip_folder(folder: Path) -> str | None:
    """Why a folder that holds folders of clips is not read as one folder per species.

    Parameters
    ----------
    folder : to look into

    Returns
    -------
    reason : what is in the way; None for a folder without folders of clips, or for a good one
    """
    if not (names := _species_names(folder)):
        return None
    for path in sorted(folder.iterdir()):
        is_table = path.suffix.lower() in SUFFIXES | {".csv", ".tsv"} and path.is_file()
        if is_table and not path.name.startswith("."):
            return f"{path.name!r} lies beside the folders of clips"
    for name in names:
        if name.lower() in _NO_CLIPS or site_from_folder(PurePath(name)) is None:
            return f"{name!r} may be a folder of whole recordings, not the name of a species"
    return None


def read_clips(folder: Path, verdict: GivenVerdict = None) -> AnnotationTable:
    """Read every clip as a box of its folder's species.

    A row is the clip's number in its folder, in the order of the names.

    Parameters
    ----------
    folder : with one folder per species
    verdict : of all clips of a species' folder, present where the user gave none

    Returns
    -------
    table : annotations, each clip as its file, and findings
    """
    annotations, files, rows, findings = [], [], [], []
    for home in _species_folders(folder):
        labels = parse_folder(home.name)
        if not labels:
            what, remedy = "the folder's name is no species", "name it after the species"
            findings.append(Finding("W_CLIP_FOLDER", str(home), None, what, remedy, serious=True))
        for row, clip in enumerate(sorted(_clips(home)), start=1):
            for label, present in labels:
                given = present
                if isinstance(verdict, bool) and label != EVERY_CLASS:
                    given = verdict
                annotations.append(Annotation(str(clip), 0.0, math.inf, label, given))
                files.append(clip)
                rows.append(row)
    return AnnotationTable(
        "clips", folder, tuple(annotations), tuple(rows), tuple(findings), files=tuple(files)
    )


def parse_folder(name: str) -> list[tuple[str, bool]]:
    """The species that the clips of a folder contain, or do not contain.

    Parameters
    ----------
    name : of the folder

    Returns
    -------
    labels : each with its verdict

    Examples
    --------
    >>> parse_folder("Turdus merula_Common Blackbird"), parse_folder("-wren"), parse_folder("noise")
    ([('Turdus merula', True)], [('wren', False)], [('*', False)])
    """
    labels = []
    parts = [part.strip() for part in name.split(",")]
    for part in parts:
        label = part.removeprefix("-").strip()
        if match := _SCIENTIFIC.fullmatch(label):
            label = match[1]
        if label and label != EVERY_CLASS and label.lower() not in _NO_SPECIES:
            labels.append((label, not part.startswith("-")))
    without_any = any(part.lower() in _NO_SPECIES for part in parts)
    if without_any and not any(present for _, present in labels):
        labels.append((EVERY_CLASS, False))
    return labels


def _species_names(folder: Path) -> list[str]:
    return [home.name for home in _species_folders(folder)]


def _species_folders(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and any(True for _ in _clips(path)):
            yield path


def _clips(folder: Path) -> Iterator[Path]:
    return (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


CLIPS = TableFormat("clips", (), lambda header: False, read_clips)
