"""Events in the formats of other programs, with times that count files without events."""

from typing import get_args

import pandas as pd
import pytest
import soundfile as sf

from antpitta.api import predict_to
from antpitta.core.config import EventFormat
from antpitta.core.errors import UserError
from antpitta.files.formats import read_table
from antpitta.files.recordings import ListedFile
from antpitta.predict.camtrapdp import NAME
from antpitta.predict.exports import FORMATS, RAVEN_COLUMNS, read_events, write_events
from antpitta.predict.journal import JournalEntry
from antpitta.predict.tables import TEXT_COLUMNS

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
    for name, columns in (("events.csv", 11), ("events.kaleidoscope.csv", 14)):
        assert pd.read_csv(tmp_path / name).shape == (0, columns)
    assert pd.read_csv(tmp_path / "events.raven.txt", sep="\t").shape == (0, len(RAVEN_COLUMNS))
    assert pd.read_parquet(tmp_path / "events.parquet").shape == (0, 11)


def test_all_formats_hold_the_same_events(run, simulated, tmp_path):
    prediction = predict_to(run.model, [simulated / "test"], tmp_path, formats=ALL)
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
