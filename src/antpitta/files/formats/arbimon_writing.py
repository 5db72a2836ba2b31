"""Writing Arbimon's packets of tables: the zip of matching jobs, and the backup's folder.

A packet appears whole or not at all: it is made beside its place and then moved there.
"""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.filenames import start_from_name
from antpitta.files.formats.arbimon_folders import JOBS
from antpitta.files.formats.writing import digits, edges, verdicts
from antpitta.files.tables import write_csv
from antpitta.files.texts import atomic_replace


def write_jobs(annotations: Sequence[Annotation], path: Path) -> None:
    """A job for each species and song type; ``path`` ends in .zip, or is a new folder."""
    jobs = list(dict.fromkeys((said.label, said.songtype) for said in annotations))
    summary = {
        "job_id": [str(i + 1) for i in range(len(jobs))],
        "job_name": [f"{label} {songtype}".strip() for label, songtype in jobs],
        "template_id": [str(i + 1) for i in range(len(jobs))],
        "species_id": [str(i + 1) for i in range(len(jobs))],
        "scientific_name": [label for label, _ in jobs],
        "songtype": [songtype or "---" for _, songtype in jobs],
    }
    with _packet(path) as folder:
        write_csv(pd.DataFrame(summary), folder / JOBS)
        for number, job in enumerate(jobs, start=1):
            said = [a for a in annotations if (a.label, a.songtype) == job]
            write_csv(_job(said), folder / f"pm_job_{number}.csv")


def _job(annotations: Sequence[Annotation]) -> pd.DataFrame:
    began = [start_from_name(said.recording) for said in annotations]
    return pd.DataFrame(
        {
            **_box(annotations),
            "score": [score or "---" for score in digits(said.score for said in annotations)],
            "validated": verdicts(annotations, "1", "0"),
            "site_id": ["---"] * len(annotations),
            "recording_id": [said.recording for said in annotations],
            "recording_local_time": ["---" if t is None else t.isoformat() for t in began],
            "site_name": ["---"] * len(annotations),
            "audio_url": ["---"] * len(annotations),
        }
    )


def write_backup(annotations: Sequence[Annotation], path: Path) -> None:
    """A new folder with the matches in one part, and the tables that they point to."""
    names = list(dict.fromkeys(said.recording for said in annotations))
    kinds = list(dict.fromkeys((said.label, said.songtype) for said in annotations))
    labels = list(dict.fromkeys(label for label, _ in kinds))
    songs = list(dict.fromkeys(songtype for _, songtype in kinds))
    began = [start_from_name(name) for name in names]
    rois = {
        "pattern_matching_id": ["1"] * len(annotations),
        "recording_id": [str(names.index(said.recording) + 1) for said in annotations],
        "species_id": [str(labels.index(said.label) + 1) for said in annotations],
        "songtype_id": [str(songs.index(said.songtype) + 1) for said in annotations],
        **_box(annotations),
        "score": digits(said.score for said in annotations),
        "validated": verdicts(annotations, "1", "0"),
    }
    species = {
        "species_id": [str(labels.index(label) + 1) for label, _ in kinds],
        "scientific_name": [label for label, _ in kinds],
        "songtype_id": [str(songs.index(songtype) + 1) for _, songtype in kinds],
        "songtype": [songtype or "---" for _, songtype in kinds],
    }
    recordings = {
        "recording_id": [str(i + 1) for i in range(len(names))],
        "site_id": ["1"] * len(names),
        "datetime": ["" if when is None else when.isoformat() for when in began],
        "meta": [json.dumps({"filename": name}) for name in names],
        "path": names,
    }
    with _packet(path) as folder:
        write_csv(pd.DataFrame(rois), folder / "pattern_matching_rois.0001.csv")
        write_csv(pd.DataFrame(species), folder / "species.0001.csv")
        write_csv(pd.DataFrame(recordings), folder / "recordings.0001.csv")
        sites = pd.DataFrame({"site_id": ["1"], "name": ["site 1"]})
        write_csv(sites, folder / "sites.0001.csv")


def _box(annotations: Sequence[Annotation]) -> dict[str, list[str]]:
    return {
        "x1": digits(said.start for said in annotations),
        "y1": digits(said.low for said in annotations),
        "x2": digits(said.stop for said in annotations),
        "y2": edges(said.high for said in annotations),
    }


@contextmanager
def _packet(path: Path) -> Iterator[Path]:
    """A folder to fill, which then becomes ``path``: a zip by its suffix, else a new folder."""
    zipped = path.suffix.lower() == ".zip"
    if not zipped and path.exists() and (path.is_file() or any(path.iterdir())):
        raise UserError("E_TODO", f"{path}: is there already", "give the name of a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".packet-") as place:
        folder = Path(place) / "tables"
        folder.mkdir()
        yield folder
        if not zipped:
            if path.exists():
                path.rmdir()
            shutil.move(folder, path)
            return
        with atomic_replace(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name, zipfile.ZIP_DEFLATED)
