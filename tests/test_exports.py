"""Events in the formats of other programs, with times that count files without events."""

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from antpitta.api import predict_to
from antpitta.core.config import EventFormat
from antpitta.core.errors import UserError
from antpitta.files.dataset import DataSource, open_dataset
from antpitta.files.deployments import Deployment, Deployments
from antpitta.files.formats import read_table
from antpitta.files.recordings import ListedFile
from antpitta.files.remote import RemotePath
from antpitta.predict.camtrapdp import NAME
from antpitta.predict.exports import (
    FORMATS,
    RAVEN_COLUMNS,
    read_events,
    recording_file_names,
    write_events,
)
from antpitta.predict.journal import Journal, JournalEntry
from antpitta.predict.tables import COLUMNS, TEXT_COLUMNS, Archive

ALL = tuple(FORMATS)


def entry(path, duration, *spans, recorded_at=None, site=None):
    events = tuple((start, stop, 500.0, 2000.0, "frog", 0.9, "m") for start, stop in spans)
    return JournalEntry(path, (1, 1), "", duration, site, recorded_at, events=events)


def test_choices_of_the_option_are_the_formats():
    assert get_args(EventFormat) == (*FORMATS, NAME)


@pytest.fixture
def parts(tmp_path):
    """Two parts: a file with events, one without, and one with an event at midnight."""
    a, b, c = (tmp_path / "s1" / f"{name}.wav" for name in "abc")
    first = [
        (ListedFile("a", a), entry(a, 60.0, (1.0, 2.5), (10.0, 11.0))),
        (ListedFile("b", b), entry(b, 30.5)),
    ]
    late = entry(c, 60.0, (59.0, 60.0), recorded_at="2025-05-31T23:59:30", site="bog")
    return lambda: iter([first, [(ListedFile("north/c", c), late)]])


def test_raven_times_include_files_without_events(parts, tmp_path):
    write_events(parts, tmp_path, ["raven"], tmp_path)
    table = pd.read_csv(tmp_path / "events.raven.txt", sep="\t")
    assert tuple(table.columns) == RAVEN_COLUMNS
    assert table["Begin Time (s)"].tolist() == [1.0, 10.0, 60 + 30.5 + 59]
    assert table["End Time (s)"].tolist() == [2.5, 11.0, 60 + 30.5 + 60]
    assert table["File Offset (s)"].tolist() == [1.0, 10.0, 59.0]
    assert table["Selection"].tolist() == [1, 2, 3]
    assert table["Begin Date Time"].tolist()[2] == "2025/06/01 00:00:29.000"
    assert table["Site"].tolist()[2] == "bog"
    assert read_table(tmp_path / "events.raven.txt").unvalidated == 3
    boxes = read_table(tmp_path / "events.raven.txt", verdict=True).annotations
    assert [(box.start, box.stop) for box in boxes] == [(1.0, 2.5), (10.0, 11.0), (59.0, 60.0)]


def test_audacity_has_a_track_for_each_recording_below_its_folder(parts, tmp_path):
    write_events(parts, tmp_path, ["audacity"], tmp_path)
    home = tmp_path / "audacity"
    assert (home / "s1" / "b.txt").read_text() == ""
    assert (home / "s1" / "c.txt").read_text().splitlines()[0] == "59.0\t60.0\tfrog;0.900"
    boxes = read_table(home / "s1" / "c.txt", verdict=True).annotations
    assert [(box.recording, box.start, box.low, box.high) for box in boxes] == [
        ("c", 59.0, 500.0, 2000.0)
    ]
    assert read_table(home / "s1" / "a.txt").unvalidated == 2


def test_kaleidoscope_has_folder_file_and_clock_time(parts, tmp_path):
    write_events(parts, tmp_path, ["kaleidoscope"], tmp_path)
    table = pd.read_csv(tmp_path / "events.kaleidoscope.csv")
    last = table.iloc[-1]
    assert (last["FOLDER"], last["IN FILE"], last["OFFSET"]) == ("s1", "c.wav", 59.0)
    assert (last["DATE"], last["TIME"]) == ("2025-06-01", "00:00:29.000")
    assert last["INDIR"] == str(tmp_path)
    assert table["DATE"].isna().tolist() == [True, True, False]
    assert last["DURATION"] == 1.0


def test_archive_without_recordings_has_tables_with_a_header(tmp_path):
    write_events(lambda: iter(()), tmp_path, ALL, tmp_path)
    for name, columns in (("events.csv", 12), ("events.kaleidoscope.csv", 15)):
        assert pd.read_csv(tmp_path / name).shape == (0, columns)
    assert pd.read_csv(tmp_path / "events.raven.txt", sep="\t").shape == (0, len(RAVEN_COLUMNS))
    assert pd.read_parquet(tmp_path / "events.parquet").shape == (0, 12)


def test_all_formats_hold_the_same_events(run, simulated, tmp_path):
    prediction = predict_to(run.model, [simulated / "test"], tmp_path, formats=ALL, threshold=0.3)
    assert prediction.counts.events == len(prediction.events) > 0
    table = read_events(tmp_path / ".")
    assert (table["verdict"] == "").all()
    table = pd.read_csv(tmp_path / "events.csv", dtype=dict.fromkeys(TEXT_COLUMNS, str),
                        keep_default_na=False)  # fmt: skip
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "events.parquet"))
    raven = pd.read_csv(tmp_path / "events.raven.txt", sep="\t")
    assert (raven["Species"] == table["species"]).all()
    assert raven["File Offset (s)"].tolist() == table["start_time"].tolist()
    lengths = {str(p): sf.info(p).duration for p in sorted((simulated / "test").iterdir())}
    before = pd.Series(lengths).cumsum().shift(fill_value=0.0)
    expected = table["start_time"] + table["file"].map(before)
    assert raven["Begin Time (s)"].to_numpy() == pytest.approx(expected.to_numpy(), abs=2e-3)
    labels = sum(read_table(path).unvalidated for path in (tmp_path / "audacity").iterdir()
                 if path.stat().st_size)  # fmt: skip
    assert labels == len(pd.read_csv(tmp_path / "events.kaleidoscope.csv")) == len(table)


def test_tables_of_an_earlier_run_are_deleted(run, simulated, tmp_path):
    predict_to(run.model, [simulated / "test"], tmp_path, formats=("csv", "parquet"))
    prediction = predict_to(run.model, [simulated / "test"], tmp_path, formats=("raven",))
    assert not (tmp_path / "events.csv").exists()
    assert not (tmp_path / "events.parquet").exists()
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        _ = prediction.events
    assert error.value.code == "E_NO_EVENT_TABLE"


def read_csv(path):
    """As the documentation says."""
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def test_events_have_the_contract_of_columns_with_site_and_clock_time(parts, tmp_path):
    write_events(parts, tmp_path, ["csv", "parquet"], tmp_path)
    header = "file,site,start_time,end_time,clock_time,low_freq,high_freq,species,score,model"
    table = read_csv(tmp_path / "events.csv")
    assert ",".join(table.columns) == f"{header},support,verdict"
    assert table["site"].tolist() == ["", "", "bog"]
    assert table["clock_time"].tolist() == ["", "", "2025-06-01T00:00:29.000"]
    parquet = pd.read_parquet(tmp_path / "events.parquet")
    assert parquet[list(TEXT_COLUMNS)].equals(
        table[list(TEXT_COLUMNS)].astype(parquet["file"].dtype)
    )


BRUSSELS = Deployment("bog", 51.0, 4.0, ZoneInfo("Europe/Brussels"))


@pytest.mark.parametrize(
    ("recorded_at", "site", "deployment", "expected"),
    [
        ("2025-01-01T05:00:00", "bog", None, ("bog", "2025-01-01T05:00:10.500")),
        ("2025-01-01T05:00:00-04:00", None, None, ("", "2025-01-01T05:00:10.500-04:00")),
        ("2025-01-01T05:00:00", "BOG", BRUSSELS, ("bog", "2025-01-01T05:00:10.500+01:00")),
        ("2025-03-30T01:59:55", "bog", BRUSSELS, ("bog", "2025-03-30T03:00:05.500+02:00")),
        ("2025-01-01T05:00:00+00:00", "bog", BRUSSELS, ("bog", "2025-01-01T05:00:10.500+00:00")),
        (None, None, BRUSSELS, ("bog", "")),
        ("2025-01-01T05:00:00", "moon", BRUSSELS, ("moon", "2025-01-01T05:00:10.500")),
    ],
)
def test_site_and_zone_are_those_of_the_deployment(
    tmp_path, recorded_at, site, deployment, expected
):
    path = tmp_path / "rec" / "a.wav"
    sites = None if deployment is None else Deployments({"bog": deployment}, tmp_path)
    with Journal(tmp_path / "out", {}, resume=False) as journal:
        made = entry(path, 60.0, (10.5, 11.0), recorded_at=recorded_at, site=site)
        journal.add(replace(made, presence=np.zeros(1, np.float32)))
        archive = Archive(journal, (ListedFile("a", path),), (), ("frog",), sites, tmp_path)
        write_events(archive.parts, tmp_path, ["csv", "raven", "kaleidoscope"], tmp_path)
    (row,) = read_csv(tmp_path / "events.csv").to_dict("records")
    assert (row["site"], row["clock_time"]) == expected
    (row,) = pd.read_csv(tmp_path / "events.kaleidoscope.csv", dtype=str, keep_default_na=False
                         ).to_dict("records")  # fmt: skip
    assert row["SITE"] == expected[0]
    assert row["TIME"] == expected[1][11:23]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_events_of_an_earlier_version_are_read(parts, tmp_path, form):
    write_events(parts, tmp_path, [form], tmp_path)
    path = tmp_path / f"events.{form}"
    table = read_events(tmp_path)
    old = table.drop(columns=["site", "clock_time", "verdict"])
    old.to_csv(path, index=False) if form == "csv" else old.to_parquet(path)
    again = read_events(tmp_path)
    assert tuple(again.columns) == COLUMNS
    assert (again[["site", "clock_time", "verdict"]] == "").all(axis=None)
    assert again["start_time"].tolist() == table["start_time"].tolist()


def test_raven_has_a_table_per_recording_with_times_in_it(parts, tmp_path):
    write_events(parts, tmp_path, ["raven"], tmp_path)
    home = tmp_path / "raven" / "s1"
    assert sorted(path.name for path in home.iterdir()) == [
        f"{name}.selections.txt" for name in "abc"
    ]
    table = pd.read_csv(home / "c.selections.txt", sep="\t")
    assert tuple(table.columns) == RAVEN_COLUMNS
    assert table["Begin Time (s)"].tolist() == table["File Offset (s)"].tolist() == [59.0]
    assert table["Selection"].tolist() == [1]
    assert read_table(home / "a.selections.txt").unvalidated == 2
    silent = read_table(home / "b.selections.txt")
    assert (silent.annotations, silent.unvalidated) == ((), 0)


NAMES = {  # of recordings, and of their label tracks
    "a.wav": "a.wav.txt",
    "a.flac": "a.flac.txt",
    "b.wav": "b.txt",
    "north/b.wav": "north/b.txt",
    "q.txt/r.wav": "q.txt/r.txt",
    "q.wav": "q.wav.txt",
    "C.wav": None,
    "c.wav": None,
    "x" * 251 + ".wav": "x" * 251 + ".txt",
    "x" * 252 + ".au": None,
    "[red]\n.wav": "[red]\n.txt",
    "NA.wav": "NA.txt",
    os.fsdecode(b"caf\xe9.wav"): "caf\\xe9.txt",
    os.fsdecode(b"\xe9" * 200 + b".wav"): None,
    os.fsdecode(b"\xe9" * 200) + "/d.wav": None,
}


def test_files_per_recording_have_names_of_their_own(tmp_path):
    entries = [(ListedFile("", tmp_path / name), entry(tmp_path / name, 1.0)) for name in NAMES]
    names = recording_file_names(lambda: iter([entries]), tmp_path, ".txt")
    given = {path.relative_to(tmp_path).as_posix(): name for path, name in names.items()}
    assert {name: given[name] for name in NAMES if NAMES[name]} == {
        name: track for name, track in NAMES.items() if track
    }
    assert len({name.casefold() for name in names.values()}) == len(NAMES)
    parents = {str(parent) for name in names.values() for parent in Path(name).parents}
    assert not parents & set(names.values())
    for name in names.values():
        assert all(len(part.encode()) <= 255 for part in name.split("/"))
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("")


def test_key_of_a_remote_object_leads_to_no_other_folder():
    path = RemotePath("s3://bucket/season/../../../x.wav")
    entries = [(ListedFile("x", path), JournalEntry(path, (1, 1)))]
    (name,) = recording_file_names(lambda: iter([entries]), Path("/s3/bucket"), ".txt").values()
    assert ".." not in name.split("/")
    assert not name.startswith("/")


ODD_NAMES = (
    *("a\nb", "a\rc", "a\td", "a,b", 'a"b', "=cmd|' C'!A0", "+1", "-1", "@x", "NA", "null", "nan"),
    *("\U0001f438", "[red]", "[", "\x1b]0;x\x07", "\x7f", "\u202egpj", "  s", "None", "1e5", "007"),
)


def test_odd_names_read_back_from_every_table(tmp_path):
    """By pandas and by csv as they were, and as the recordings that they are."""
    folder = tmp_path / "rec"
    folder.mkdir()
    files = [folder / f"{name}.wav" for name in (*ODD_NAMES, os.fsdecode(b"caf\xe9"))]
    for file in files:
        sf.write(os.fsencode(file), np.zeros(8000), 8000, format="WAV")
    entries = [(ListedFile(file.stem, file), entry(file, 1.0, (0.1, 0.5), site="=1+1"))
               for file in files]  # fmt: skip
    write_events(lambda: iter([entries]), tmp_path, ALL, folder)
    expected = [*(str(folder / f"{name}.wav") for name in ODD_NAMES), f"{folder}/caf\\xe9.wav"]
    assert read_csv(tmp_path / "events.csv")["file"].tolist() == expected
    with (tmp_path / "events.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["file"] for row in csv.DictReader(stream)] == expected
    assert read_events(tmp_path)["file"].tolist() == expected
    assert set(read_events(tmp_path)["site"]) == {"=1+1"}
    for name in ("events.csv", "events.raven.txt", "events.kaleidoscope.csv", "raven", "audacity"):
        dataset = open_dataset(DataSource((folder,), present=(tmp_path / name,))).dataset
        assert len({box.recording for box in dataset.annotations}) == len(files), name
