"""Events as other programs read them: on the right clock, though some files are silent."""

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
from antpitta.predict.exports import FORMATS, RAVEN, write_events
from antpitta.predict.journal import JournalEntry

ALL = tuple(FORMATS)


def entry(path, seconds, *spans, began=None, site=None):
    events = tuple((a, b, 500.0, 2000.0, "frog", 0.9, "m") for a, b in spans)
    return JournalEntry(path, (1, 1), seconds=seconds, recorded_at=began, site=site, events=events)


def test_a_user_can_choose_each_and_no_other():
    assert get_args(EventFormat) == (*FORMATS, NAME)


@pytest.fixture
def parts(tmp_path):
    """Two parts: a calling file, a silent one, and a calling one at midnight."""
    a, b, c = (tmp_path / "s1" / f"{name}.wav" for name in "abc")
    one = [
        (ListedFile("a", a), entry(a, 60.0, (1.0, 2.5), (10.0, 11.0))),
        (ListedFile("b", b), entry(b, 30.5)),
    ]
    late = entry(c, 60.0, (59.0, 60.0), began="2025-05-31T23:59:30", site="bog")
    return lambda: iter([one, [(ListedFile("north/c", c), late)]])


def test_raven_counts_the_seconds_of_silent_files_too(parts, tmp_path):
    write_events(parts, tmp_path, ["raven"])
    table = pd.read_csv(tmp_path / "events.raven.txt", sep="\t")
    assert tuple(table.columns) == RAVEN
    assert table["Begin Time (s)"].tolist() == [1.0, 10.0, 60 + 30.5 + 59]
    assert table["End Time (s)"].tolist() == [2.5, 11.0, 60 + 30.5 + 60]
    assert table["File Offset (s)"].tolist() == [1.0, 10.0, 59.0]
    assert table["Selection"].tolist() == [1, 2, 3]
    assert table["Begin Date Time"].tolist()[2] == "2025/06/01 00:00:29.000"
    assert table["Site"].tolist()[2] == "bog"
    told = read_table(tmp_path / "events.raven.txt").annotations
    assert [(one.start, one.stop) for one in told] == [(1.0, 2.5), (10.0, 11.0), (59.0, 60.0)]


def test_audacity_has_a_track_a_recording_below_its_folder(parts, tmp_path):
    write_events(parts, tmp_path, ["audacity"])
    home = tmp_path / "audacity"
    assert (home / "b.txt").read_text() == ""
    told = read_table(home / "north" / "c.txt").annotations
    assert [(one.recording, one.start, one.low, one.high) for one in told] == [
        ("c", 59.0, 500.0, 2000.0)
    ]
    assert len(read_table(home / "a.txt").annotations) == 2


def test_kaleidoscope_tells_folder_file_and_the_recorders_clock(parts, tmp_path):
    write_events(parts, tmp_path, ["kaleidoscope"])
    table = pd.read_csv(tmp_path / "events.kaleidoscope.csv")
    last = table.iloc[-1]
    assert (last["FOLDER"], last["IN FILE"], last["OFFSET"]) == ("s1", "c.wav", 59.0)
    assert (last["DATE"], last["TIME"]) == ("2025-06-01", "00:00:29.000")
    assert last["INDIR"] == str(tmp_path)
    assert table["DATE"].isna().tolist() == [True, True, False]
    assert last["DURATION"] == 1.0


def test_an_archive_without_events_has_tables_with_a_header(tmp_path):
    write_events(lambda: iter(()), tmp_path, ALL)
    for name, columns in (("events.csv", 8), ("events.kaleidoscope.csv", 14)):
        assert pd.read_csv(tmp_path / name).shape == (0, columns)
    assert pd.read_csv(tmp_path / "events.raven.txt", sep="\t").shape == (0, len(RAVEN))
    assert pd.read_parquet(tmp_path / "events.parquet").shape == (0, 8)


def test_every_format_tells_the_same_events(run, scapes, tmp_path):
    found = predict_to(run.model, [scapes / "test"], tmp_path, formats=ALL)
    assert found.counts.events == len(found.events) > 0
    table = pd.read_csv(tmp_path / "events.csv")
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "events.parquet"))
    raven = pd.read_csv(tmp_path / "events.raven.txt", sep="\t")
    assert (raven["Species"] == table["species"]).all()
    assert raven["File Offset (s)"].tolist() == table["start_time"].tolist()
    lengths = {str(p): sf.info(p).duration for p in sorted((scapes / "test").iterdir())}
    before = pd.Series(lengths).cumsum().shift(fill_value=0.0)
    expected = table["start_time"] + table["file"].map(before)
    assert raven["Begin Time (s)"].to_numpy() == pytest.approx(expected.to_numpy(), abs=2e-3)
    labels = sum(len(read_table(path).annotations) for path in (tmp_path / "audacity").iterdir()
                 if path.stat().st_size)  # fmt: skip
    assert labels == len(pd.read_csv(tmp_path / "events.kaleidoscope.csv")) == len(table)


def test_tables_of_another_run_do_not_stay(run, scapes, tmp_path):
    predict_to(run.model, [scapes / "test"], tmp_path, formats=("csv", "parquet"))
    found = predict_to(run.model, [scapes / "test"], tmp_path, formats=("raven",))
    assert not (tmp_path / "events.csv").exists()
    assert not (tmp_path / "events.parquet").exists()
    with pytest.raises(UserError, match="--format csv"):
        _ = found.events
