"""Tables that once were read wrongly, each with its right value.

The tables lie outside the project; without them these tests are skipped. The sound is silence or
noise of the length that a table needs.
"""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.files.checks import check_dataset
from antpitta.files.dataset import DataSource, open_dataset
from antpitta.files.formats import read_table

FAULTS = Path(__file__).parents[1].parent / "shared" / "faults"
pytestmark = pytest.mark.skipif(not FAULTS.is_dir(), reason=f"no tables at {FAULTS}")
RATE = 22_050


def write_audio(folder, *names, seconds=10.0):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / name, np.zeros(int(seconds * RATE)), RATE, format="WAV")
    return folder


def boxes_of(opened):
    return [(b.recording, b.start, b.label, b.present) for b in opened.dataset.annotations]


def open_fault(audio, table):
    return open_dataset(DataSource((audio,), annotations=(FAULTS / table,)))


def test_raven_row_that_is_shorter_than_the_header_is_read(tmp_path):
    audio = write_audio(tmp_path / "rec", "S2_20240501_050000.wav")
    opened = open_fault(audio, "01-raven-short-rows")
    assert boxes_of(opened) == [("S2_20240501_050000", 1.0, "WOTH", True)]


def test_file_offset_without_a_unit_is_used(tmp_path):
    audio = tmp_path / "rec"
    for name in ("Phae.long1.wav", "Phae.long2.wav", "Phae.long3.wav", "Phae.long4.wav"):
        write_audio(audio, name, seconds=12.0)
    opened = open_fault(audio, "02-raven-file-offset-column/with_species.txt")
    starts = {}
    for recording, start, _, _ in boxes_of(opened):
        starts.setdefault(recording, []).append(round(start, 3))
    assert starts == {
        "Phae.long1": [1.169, 2.158, 0.343],
        "Phae.long2": [0.160, 1.457],
        "Phae.long3": [0.627, 1.974, 0.123],
        "Phae.long4": [1.517, 2.933, 0.145],
    }


def test_rows_of_later_files_without_a_name_are_left_out(tmp_path):
    names = [f"S1_20240501_05{minute}000.wav" for minute in "012"]
    table = FAULTS / "03-raven-offset-no-file" / "S1_20240501_050000.Table.1.selections.txt"
    opened = open_fault(write_audio(tmp_path / "rec", *names), table)
    assert boxes_of(opened) == [("S1_20240501_050000", 1.0, "WOTH", True)]
    findings = [(f.code, f.file, f.row) for f in opened.findings if f.serious]
    assert findings == [("W_FILE_NOT_NAMED", str(table), row) for row in (3, 4)]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("S1_20240501_050000.Table.1.selections.txt", ["WOTH", "WOTH", "EATO", "WOTH"]),
        ("quoted_word.txt", ["WOTH", "WOTH"]),
    ],
)
def test_quote_marks_of_raven_are_characters(name, labels):
    table = read_table(FAULTS / "04-raven-quote-marks" / name)
    assert [box.label for box in table.annotations] == labels
    assert not table.findings


@pytest.mark.parametrize(
    ("name", "unjudged"),
    [
        ("S1_20240501_050000.txt", 3),
        ("antpitta_events.raven.txt", 44),
        ("koogu_detections.selections.txt", 2),
        ("nighthawk_raven.txt", 1),
        ("test0000.txt", 19),
    ],
)
def test_scores_without_verdicts_are_unjudged(name, unjudged):
    table = read_table(FAULTS / "05-scores-taken-for-truth" / name)
    assert (table.annotations, table.unvalidated) == ((), unjudged)
    assert len(read_table(table.path, verdict=True).annotations) == unjudged


def test_label_with_a_score_gives_species_and_score():
    table = read_table(FAULTS / "05-scores-taken-for-truth" / "S1_20240501_050000.txt", True)
    labels = [(box.label, box.score) for box in table.annotations]
    assert labels == [("WOTH", 0.953), ("WOTH", 0.871), ("EATO", 0.402)]


@pytest.mark.parametrize("name", ["siteB.selections.txt", "siteB_without_begin_file.txt"])
@pytest.mark.parametrize("home", ["siteA", "."])
def test_path_of_another_site_is_not_given_to_the_only_file(tmp_path, name, home):
    audio = write_audio(tmp_path / "onlyA", f"{home}/20240501_050000.WAV")
    with pytest.raises(UserError) as error:
        open_fault(audio, f"06-begin-path-ignored/{name}")
    assert error.value.code == "E_AMBIGUOUS_RECORDING"
    assert "siteB" in error.value.what


@pytest.mark.parametrize("name", ["siteB.selections.txt", "siteB_without_begin_file.txt"])
def test_path_names_the_site_where_both_are_here(tmp_path, name):
    names = [f"site{site}/20240501_050000.WAV" for site in "AB"]
    opened = open_fault(write_audio(tmp_path / "both", *names), f"06-begin-path-ignored/{name}")
    assert [box[:3] for box in boxes_of(opened)] == [
        ("siteB/20240501_050000", 1.0, "WOTH"),
        ("siteB/20240501_050000", 4.0, "EATO"),
    ]


def test_accents_in_either_form_are_one_recording_and_one_species(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Peñón_20240501_050000.wav")
    audio = write_audio(tmp_path / "rec", decomposed, "llano_20240501_050000.wav")
    opened = open_fault(audio, "12-unicode-forms/boxes.csv")
    assert len(opened.dataset.annotations) == 4
    assert opened.dataset.classes.names == ("WOTH", "Zorzal pálido")
    ids = {recording.id for recording in opened.dataset.recordings}
    assert ids == {"Peñón_20240501_050000", "llano_20240501_050000"}
    assert not opened.findings


def test_findings_of_a_folder_of_tables_name_the_table(tmp_path):
    names = ("S1_20240501_050000.wav", "S1_20240501_051000.wav")
    home = FAULTS / "16-folder-findings-name-no-file"
    tables = [home / "anna.txt", home / "ben.txt"]
    audio = write_audio(tmp_path / "rec", *names)
    single = open_dataset(DataSource((audio,), annotations=tuple(tables)))
    folder = tmp_path / "tables"
    folder.mkdir()
    for table in tables:
        (folder / table.name).write_bytes(table.read_bytes())
    joined = open_dataset(DataSource((audio,), annotations=(folder,)))
    assert boxes_of(joined) == boxes_of(single)
    rows = {(f.code, Path(f.file).name, f.row, f.serious) for f in check_dataset(joined) if f.row}
    assert ("W_BOX_BEYOND_END", "anna.txt", 3, True) in rows
    assert ("W_BOX_DUPLICATE", "ben.txt", 2, False) in rows
    assert rows == {
        (f.code, Path(f.file).name, f.row, f.serious) for f in check_dataset(single) if f.row
    }
