"""Every reader of tables and of text files that a user gives; the first byte chooses the reader.

A reader of a folder takes several files, which are separated by a line ``%%``.
"""

import io
import sys
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from fuzz.harness import fuzz, instrumented

with instrumented():
    from antpitta.api.evaluation import evaluate, evaluate_events
    from antpitta.core.types import Annotation, Recording
    from antpitta.files.checks import check_dataset
    from antpitta.files.dataset import match_tables, read_source
    from antpitta.files.deployments import read_deployments
    from antpitta.files.formats import read_table
    from antpitta.files.recipes import read_recipe
    from antpitta.files.recordings import FoundRecordings, apply_site_table
    from antpitta.files.species_names import read_labels, read_species_names
    from antpitta.files.tables import read_prevalence

Reader = Callable[[bytes, Path], object]
SEPARATOR = b"\n%%\n"
RECORDINGS = tuple(
    Recording(name, Path(f"/audio/{site}/{name}.wav"), 48_000, 48_000 * 60, 1, site, time)
    for name, site, time in (
        ("S4A_20240501_050000", "a", datetime(2024, 5, 1, 5)),
        ("dawn", "b", None),
        ("07", "b", None),
    )
)


def table(name: str, verdict: bool | None = None) -> Reader:
    """A reader of one table of annotations with this file name."""

    def read(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        found = read_table(folder / name, verdict)
        for annotation in found.annotations:
            assert isinstance(annotation, Annotation)
        return [str(finding) for finding in found.findings]

    return read


def folder_of(*names: str) -> Reader:
    """A reader of a folder with these files."""

    def read(data: bytes, folder: Path) -> object:
        for name, content in zip(names, data.split(SEPARATOR), strict=False):
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(content)
        return [str(finding) for finding in read_table(folder).findings]

    return read


def zipped(data: bytes, folder: Path) -> object:
    """A reader of a zip, whose own bytes are those of the input."""
    (folder / "tables.zip").write_bytes(data)
    return read_table(folder / "tables.zip")


def dataset(data: bytes, folder: Path) -> object:
    """A table, matched with recordings and checked."""
    (folder / "boxes.csv").write_bytes(data)
    found = read_table(folder / "boxes.csv")
    opened = match_tables(FoundRecordings(RECORDINGS, ()), [found])
    return [str(finding) for finding in (*opened.findings, *check_dataset(opened))]


def scores(data: bytes, folder: Path) -> object:
    """Scores and their ground truth."""
    table, _, truth = data.partition(SEPARATOR)
    (folder / "scores.csv").write_bytes(table)
    (folder / "truth.csv").write_bytes(truth)
    return evaluate(folder / "scores.csv", folder / "truth.csv")


def events(data: bytes, folder: Path) -> object:
    """Events of a model and a table of every call."""
    table, _, truth = data.partition(SEPARATOR)
    (folder / "presence.csv").write_text("recording_id,s1\ndawn,0.5\n")
    (folder / "events.csv").write_bytes(table)
    (folder / "truth.csv").write_bytes(truth)
    return evaluate_events(folder, folder / "truth.csv")


def text(name: str, reader: Callable[[Path], object]) -> Reader:
    """A reader of one file with this name."""

    def read(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return reader(folder / name)

    return read


READERS: dict[bytes, Reader] = {
    b"a": table("t.csv"),
    b"b": table("dawn.Table.1.selections.txt"),
    b"c": table("t.csv", True),
    b"d": table("t.tsv", False),
    b"e": folder_of("a.txt", "b/c.csv", "d.tsv"),
    b"f": folder_of("_pattern_matching.csv", "pm_x_1.csv", "pm_2.csv"),
    b"g": folder_of(
        *("pattern_matching_rois.0000.csv", "species.csv", "recordings.csv", "sites.csv")
    ),
    b"h": zipped,
    b"i": dataset,
    b"j": scores,
    b"k": events,
    b"l": text("p.csv", lambda path: read_prevalence(path, ("s1", "Coqui", "7"))),
    b"m": text("d.csv", lambda path: read_deployments(path).find("a", ["b"])),
    b"n": text("s.csv", lambda path: apply_site_table(RECORDINGS, path)),
    b"o": text("n.csv", read_species_names),
    b"p": text("l.txt", read_labels),
    b"q": text("l.csv", read_labels),
    b"r": text("antpitta.toml", read_source),
    b"s": text("recipe.toml", lambda path: read_recipe(str(path))),
}


def run(data: bytes, folder: Path) -> None:
    """One input: the reader's letter, then the bytes of the file."""
    letters = sorted(READERS)
    letter = data[:1] if data[:1] in READERS else letters[(data or b"\0")[0] % len(letters)]
    READERS[letter](data[1:], folder)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dawn.txt", "1.0\t2.0\tcoqui\n")
        archive.writestr("a/t.csv", OWN)
    return buffer.getvalue()


OWN = (
    "recording,start_time,end_time,low_freq,high_freq,species,verdict,score,source\n"
    "dawn,1.5,2.5,100,2000,coqui,present,0.9,review:me\n07,0,60,,,*,absent,,\n"
    'S4A_20240501_050000.wav,1,2,0,9000,"a, ""b""\nc",yes,,human\n'
)
EVENTS = (
    "file,start_time,end_time,low_freq,high_freq,species,score,model,verdict\n"
    "/audio/b/dawn.wav,1.5,2.5,100,2000,s1,0.9,quick,\n"
)
RFCX = (
    "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\ndawn,11,1,1.0,93.75,2.0,2906.2\n"
)
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Begin File\tBegin Path\tFile Offset (s)\tSpecies\tScore\tVerdict\n"
    "1\tSpectrogram 1\t1\t1.5\t2.5\t100\t2000\tdawn.wav\t/audio/b/dawn.wav\t1.5\tWOTH\t0.9\tyes\n"
    "1\tWaveform 1\t1\t1.5\t2.5\t\t\tdawn.wav\t\t1.5\tWOTH\n2\n"
)
BIRDNET = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Common Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)\n"
    "1\tSpectrogram 1\t1\t0.0\t3.0\t0\t12000\tWood Thrush\twoothr\t0.95\tC:\\a\\dawn.wav\t0.0\n"
)
AUDACITY = "1.000000\t2.000000\tWOTH;0.95;yes\n\\\t100.0\t2000.0\n3,5\t4,5\tA\n"
KALEIDOSCOPE = (
    "INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,Fmin,Fmax,DATE,TIME,SITE,AUTO ID,SCORE,"
    "MANUAL ID\n"
    "/audio,b,dawn.wav,0,1.5,1,100,2000,2024-05-01,05:00:00,b,WOTH,0.9,\n"
    "/audio,b,dawn.wav,0,3,1,,,,,,WOTH,,A;B+C\n/audio,b,07.wav,0,3,1,,,,,,WOTH,,noise\n"
)
HOPLITE = "recording,start_offset_s,end_offset_s,label,label_type\ndawn,0,5,s1,positive\n"
ARBIMON = (
    "recording,site,year,month,day,hour,min,species,songtype,x1,x2,y1,y2,frequency,validated,score\n"
    "S4A_20240501_050012.wav,a,2024,5,1,5,2,Coqui,Common Song,1,2,100,2000,24000,present,0.4\n"
    "S4A_20240501_235912.wav,a,,,,0,1,Coqui,,1,2,100,2000,24000,(not validated),\n"
)
JOBS = "job_id,job_name,scientific_name,songtype\n1,x,Coqui,Song\n2,y,A b,---\n"
JOB = (
    "x1,y1,x2,y2,validated,recording_id,recording_local_time,audio_url,site_name\n"
    "1,100,2,2000,1,5,2024-05-01T05:00:00.000Z,https://x/y/S4A_20240501_050000.wav?a=1,a\n"
    "1,100,2,2000,---,6,---,---,---\n"
)
ROIS = (
    "pattern_matching_id,recording_id,species_id,songtype_id,x1,x2,y1,y2,validated,score\n"
    "1,5,2,1,1,2,100,2000,1,0.3\n"
)
BACKUP = (
    ROIS,
    "species_id,scientific_name,songtype_id,songtype\n2,Coqui,1,Song\n",
    "recording_id,site_id,datetime,uri,meta\n"
    '5,1,2024-05-01 05:00:00,a/b.flac,"{""filename"": ""x.wav""}"\n',
    "site_id,name\n1,a\n",
)
SCORES = "recording_id,s1,Coqui\ndawn,0.5,0.25\n07,0.1,1\n"
TRUTH = "recording_id,s1,Coqui\ndawn,1,0\n07,,1\n"
RECIPE = 'extends = "quick"\nname = "x"\n[features]\nn_mels = 32\n[stages.masked]\nepochs = 1\n'
SOURCE = 'audio = ["audio"]\nannotations = ["a.csv"]\npresent = []\nsites = "s.csv"\n'


def _join(*files: str) -> bytes:
    return SEPARATOR.join(file.encode() for file in files)


SEEDS = (
    *(b"a" + t.encode() for t in (OWN, EVENTS.replace("k,\n", "k,yes\n"), RFCX, HOPLITE, ARBIMON)),
    *(b"a" + KALEIDOSCOPE.encode(), b"a" + OWN.replace(",", ";").encode("utf-16")),
    *(b"b" + t.encode() for t in (RAVEN, BIRDNET, AUDACITY, RAVEN.partition("\n")[0] + "\n")),
    *(b"c" + RFCX.encode(), b"d" + RAVEN.encode()),
    *(b"e" + _join(AUDACITY, OWN, RAVEN), b"f" + _join(JOBS, JOB, JOB)),
    *(b"g" + _join(*BACKUP), b"h" + _zip(), b"i" + OWN.encode(), b"i" + RFCX.encode()),
    *(b"j" + _join(SCORES, TRUTH), b"k" + _join(EVENTS, OWN)),
    b"lspecies,prevalence\ns1,0.5\ncoqui,0.1\n",
    b"msite,latitude,longitude,timezone,uncertainty\na,-18.1,-66,America/Puerto_Rico,100\nb,1,2,-04:00,\n",
    b"nrecording,site,recorded_at\ndawn,z,2020-06-07 05:15:00\n07,,\n",
    b"ospecies,scientific,common\ns1,Acris crepitans,Cricket Frog\n",
    *(b"pAcris crepitans_Northern Cricket Frog\n", b"qindex,mid,name\n0,/m/1,Speech\n"),
    *(b"r" + SOURCE.encode(), b"s" + RECIPE.encode()),
)
WORDS = sorted(
    {cell.encode() for t in (OWN, EVENTS, RFCX, RAVEN, BIRDNET, KALEIDOSCOPE, HOPLITE, ARBIMON, JOB)
     for cell in t.replace("\n", ",").replace("\t", ",").split(",") if 0 < len(cell) < 60}
    | {b"\r\n", b"\r", b"\t", b";", b'""', b"\xef\xbb\xbf", b"\xff\xfe", b"sep=;\n", b"%%", b"---"}
    | {b"1e308", b"-1", b"inf", b"nan", b"1e-320", b"0x1", b"\xd9\xa1", b"\xe2\x80\xa8", b"\x85"}
    | {b"kHz", b"(ms)", b"[min]", b"uncertain", b"0.95%", b"9999-12-31", b"+25:00", b"*", b"=1+1"}
)  # fmt: skip

if __name__ == "__main__":
    fuzz("tables", run, SEEDS, WORDS)
    sys.exit()
