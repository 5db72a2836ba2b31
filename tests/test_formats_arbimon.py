"""Arbimon's export, zip and backup, and the one-minute slices."""

import shutil
import zipfile
from dataclasses import replace

import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.formats import read_table

HEADER = (
    "id,recording,site,year,month,day,hour,minute,species,songtype,x1,x2,y1,y2,frequency,"
    "validated,url,score,site_id\n"
)


def row(recording="S1_20210315_053000.wav", date="2021,3,15", at="5,30", **cells):
    values = {"site": "S1", "x1": "10.5", "x2": "12", "validated": "present"} | cells
    return (
        f"1,{recording},{values['site']},{date},{at},Frog sp,Common Song,"
        f"{values['x1']},{values['x2']},400,900,24000,{values['validated']},http://x,0.75,9\n"
    )


def export(folder, *rows, name="export.csv"):
    path = folder / name
    path.write_text(HEADER + "".join(rows))
    return path


def starts(table):
    return [annotation.start for annotation in table.annotations]


def codes(table):
    return [(finding.code, finding.row, finding.serious) for finding in table.findings]


def test_verdicts_are_present_absent_or_unknown(tmp_path):
    words = ["present", "not present", "(not validated)", "no idea"]
    table = read_table(export(tmp_path, *(row(validated=word) for word in words)))
    expected = Annotation("S1_20210315_053000.wav", 10.5, 12.0, "Frog sp", True, 400.0, 900.0)
    first = table.annotations[0]
    assert (first.songtype, first.score) == ("Common Song", 0.75)
    assert first == replace(expected, songtype="Common Song", score=0.75)
    assert [a.present for a in table.annotations] == [True, False]
    assert (table.format, table.rows, table.unvalidated) == ("arbimon", (2, 3), 1)
    assert codes(table) == [("W_VERDICT_UNREADABLE", 5, True)]
    assert "'no idea'" in table.findings[0].what


def test_box_of_a_slice_moves_to_the_clock_of_its_file(tmp_path):
    table = read_table(export(tmp_path, row(), row(at="5,31"), row(at="7,0")))
    assert starts(table) == [10.5, 70.5, 5410.5]
    assert table.annotations[1].stop == 72.0
    assert not table.findings


@pytest.mark.parametrize(
    ("name", "date"), [("69C0F3A0.WAV", "2026,3,23"), ("S4A_20260323$080240.wav", "2026,3,23")]
)
def test_slices_of_recorders_with_other_names_are_placed(tmp_path, name, date):
    table = read_table(export(tmp_path, row(name, date, "8,2"), row(name, date, "8,4")))
    assert starts(table) == [10.5, 130.5]


def test_file_that_crosses_midnight_continues(tmp_path):
    name = "S1_20201231_235500.wav"
    rows = [row(name, "2020,12,31", "23,59"), row(name, "2021,1,1", "0,2")]
    assert starts(read_table(export(tmp_path, *rows))) == [250.5, 430.5]
    stuck = row(name, "2020,12,31", "0,2")  # the date of the file, the hour of the slice
    assert starts(read_table(export(tmp_path, stuck))) == [430.5]
    dateless = row(name, ",,", "0,2")
    assert starts(read_table(export(tmp_path, dateless))) == [430.5]


def test_row_before_its_file_is_left_out_and_reported(tmp_path):
    table = read_table(export(tmp_path, row(at="5,29"), row(date="2021,3,17")))
    assert not table.annotations
    assert codes(table) == [("W_SLICE_CLOCK", 2, True), ("W_SLICE_CLOCK", 3, True)]
    assert "2021-03-15 05:29:00" in table.findings[0].what
    assert "S1_20210315_053000.wav" in table.findings[0].what


def test_seconds_in_the_name_keep_shifts_of_whole_minutes(tmp_path):
    name = "S1_20210315_053012.wav"
    table = read_table(export(tmp_path, row(name), row(name, at="5,32")))
    assert starts(table) == [10.5, 130.5]
    assert codes(table) == [("W_SLICE_ASSUMED", None, False)]
    assert not read_table(export(tmp_path, row(name))).findings  # nothing was moved


def test_name_without_a_time_cannot_place_slices(tmp_path):
    table = read_table(export(tmp_path, row("a.wav"), row("b.wav"), row("b.wav", at="5,31")))
    assert [annotation.recording for annotation in table.annotations] == ["a.wav"]
    assert codes(table) == [
        ("W_SLICE_ASSUMED", None, False),
        ("W_SLICE_CLOCK", 3, True),
        ("W_SLICE_CLOCK", 4, True),
    ]
    assert "1 recording(s), such as a.wav" in table.findings[0].what


def test_row_without_a_time_is_not_moved_and_is_reported(tmp_path):
    table = read_table(export(tmp_path, row(at=","), row(at="5,31")))
    assert starts(table) == [10.5, 70.5]
    assert codes(table) == [("W_SLICE_ASSUMED", None, False)]
    assert "S1_20210315_053000.wav" in table.findings[0].what


def test_clocks_hours_apart_are_reported(tmp_path):
    table = read_table(export(tmp_path, row(at="9,30"), row(at="10,0")))
    assert codes(table) == [("W_SLICE_ASSUMED", None, False)]


def test_name_at_two_sites_gets_the_site(tmp_path):
    name = "20210315_053000.wav"
    rows = [row(name, site="A"), row(name, site="B"), row(site="A")]
    table = read_table(export(tmp_path, *rows))
    names = [annotation.recording for annotation in table.annotations]
    assert names == [f"A/{name}", f"B/{name}", "S1_20210315_053000.wav"]


def jobs(folder, rows, job=7, songtype="Common Song"):
    folder.mkdir(exist_ok=True)
    (folder / "_pattern_matching.csv").write_text(
        "job_id,job_name,template_id,species_id,scientific_name,songtype\n"
        f"7,my job,1,2,Frog sp,{songtype}\n"
    )
    header = "x1,y1,x2,y2,score,validated,site_id,recording_id,recording_local_time,site_name"
    (folder / f"pm_my-job_{job}.csv").write_text(
        f"{header},audio_url\n" + "".join(line + "\n" for line in rows)
    )
    return folder


JOB_ROWS = [
    "10.5,400,12,900,0.7,1,5,101,2021-03-15T05:31:00.000Z,S1,"
    "https://x.org/b/S1_20210315_053000.wav?token=a%2Fb",
    "1,400,2,900,---,0,5,102,---,S1,---",
    "1,400,2,900,0.2,---,5,103,1615786320000,S1,---",
]


@pytest.mark.parametrize("shape", ["folder", "zip", "nested zip", "one file"])
def test_tables_of_jobs_are_read_from_folder_zip_or_file(tmp_path, shape):
    path = jobs(tmp_path / "jobs", JOB_ROWS)
    if shape == "zip":
        path = shutil.make_archive(str(tmp_path / "mail"), "zip", path)
    elif shape == "nested zip":
        path = shutil.make_archive(str(tmp_path / "mail"), "zip", tmp_path, "jobs")
    elif shape == "one file":
        path = path / "pm_my-job_7.csv"
    table = read_table(tmp_path / path)
    box = ("Frog sp", True, 400.0, 900.0, "human", "Common Song")
    assert table.annotations == (
        Annotation("S1_20210315_053000.wav", 70.5, 72.0, *box, 0.7),
        Annotation("102", 1.0, 2.0, box[0], False, *box[2:]),
    )
    assert (table.format, table.rows, table.unvalidated) == ("arbimon_jobs", (2, 3), 1)


@pytest.mark.parametrize("time", ["1615786320000", "2021-03-15 05:32:00", "2021-03-15T05:32:00Z"])
def test_local_time_of_a_job_is_read_in_each_notation(tmp_path, time):
    url = "https://x.org/S1_20210315_053000.wav"
    table = read_table(jobs(tmp_path / "jobs", [f"1,400,2,900,0.7,1,5,101,{time},S1,{url}"]))
    assert starts(table) == [121.0]


def test_findings_and_errors_in_a_zip_name_the_zip(tmp_path):
    folder = jobs(tmp_path / "jobs", ["12,400,10,900,0.7,1,5,101,---,S1,---"])
    path = shutil.make_archive(str(tmp_path / "mail"), "zip", folder)
    (finding,) = read_table(tmp_path / path).findings
    assert finding.file == f"{path}/pm_my-job_7.csv"
    assert (finding.code, finding.row) == ("W_BOX_EMPTY", 2)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("x.png", "")
    with pytest.raises(UserError) as error:
        read_table(tmp_path / "empty.zip")
    assert error.value.code == "E_UNKNOWN_TABLE"
    assert error.value.what.startswith(str(tmp_path / "empty.zip"))


def test_job_without_a_species_is_left_out_and_reported(tmp_path):
    table = read_table(jobs(tmp_path / "jobs", JOB_ROWS, job=8))
    assert not table.annotations
    unknown = [finding for finding in table.findings if finding.code == "W_UNKNOWN_ID"]
    assert [(finding.row, finding.serious) for finding in unknown] == [(None, True)]
    assert "3 rows" in unknown[0].what
    assert not [finding for finding in table.findings if finding.row]  # one for the whole job
    (tmp_path / "jobs" / "_pattern_matching.csv").unlink()
    with pytest.raises(UserError) as error:
        read_table(tmp_path / "jobs")
    assert error.value.code == "E_NO_FILE"
    assert "_pattern_matching.csv" in error.value.what


def backup(folder):
    tables = {
        "pattern_matching_rois.0001.csv": [
            "pattern_matching_id,recording_id,species_id,songtype_id,x1,x2,y1,y2,score,validated",
            "1,11,2,3,10.5,12,400,900,0.7,1",
        ],
        "pattern_matching_rois.0002.csv": [
            "pattern_matching_id,recording_id,species_id,songtype_id,x1,x2,y1,y2,score,validated",
            "1,12,2,3,1,2,400,900,0.6,0",
            "1,99,2,3,1,2,400,900,0.6,0",
            "1,12,9,3,1,2,400,900,0.6,0",
            "1,12,2,3,1,2,400,900,0.6,",
        ],
        "species.0001.csv": [
            "species_id,scientific_name,family,taxon,songtype_id,songtype",
            "2,Frog sp,F,T,3,Common Song",
        ],
        "recordings.0001.csv": [
            "recording_id,site_id,datetime,datetime_utc,meta,path",
            '11,5,2021-03-15 05:31:00,,"{""filename"": ""S1_20210315_053000.wav""}",a/b/uuid.flac',
            "12,5,2021-03-15 05:31:00,,,a/b/other_20210315_053100.flac",
        ],
        "sites.0001.csv": ["site_id,name", "5,S1"],
        "recording_validations.0001.csv": ["recording_id,species_id", "1,2"],
    }
    folder.mkdir()
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_tables_of_a_backup_are_joined_by_their_numbers(tmp_path):
    table = read_table(backup(tmp_path / "backup"))
    box = ("Frog sp", True, 400.0, 900.0, "human", "Common Song")
    assert table.annotations == (
        Annotation("S1_20210315_053000.wav", 70.5, 72.0, *box, 0.7),
        Annotation("other_20210315_053100.flac", 1.0, 2.0, box[0], False, *box[2:], 0.6),
    )
    assert (table.format, table.rows, table.unvalidated) == ("arbimon_backup", (2, 2), 1)
    assert codes(table) == [("W_UNKNOWN_ID", 3, True), ("W_UNKNOWN_ID", 4, True)]
    assert "recording 99" in table.findings[0].what
    assert "species 9" in table.findings[1].what
    part = read_table(tmp_path / "backup" / "pattern_matching_rois.0001.csv")
    assert part.annotations == table.annotations[:1]
