"""Arbimon's export, zip and backup, and the one-minute slices."""

import shutil
import zipfile

import numpy as np
import pytest

from antpitta.core.errors import UserError
from antpitta.core.types import Annotation
from antpitta.files.filenames import start_from_name
from antpitta.files.formats import read_table, write_table

HEADER = (
    "id,recording,site,year,month,day,hour,minute,species,songtype,x1,x2,y1,y2,frequency,"
    "validated,url,score,site_id\n"
)


def row(recording="S1_20210315_053000.wav", date="2021,3,15", at="5,30", **cells):
    told = {"site": "S1", "x1": "10.5", "x2": "12", "validated": "present"} | cells
    return (
        f"1,{recording},{told['site']},{date},{at},Frog sp,Common Song,{told['x1']},{told['x2']},"
        f"400,900,24000,{told['validated']},http://x,0.75,9\n"
    )


def export(folder, *rows, name="export.csv"):
    path = folder / name
    path.write_text(HEADER + "".join(rows))
    return path


def starts(table):
    return [said.start for said in table.annotations]


def test_verdicts_are_three_and_the_third_is_unknown(tmp_path):
    words = ["present", "not present", "(not validated)", "no idea"]
    read = read_table(export(tmp_path, *(row(validated=word) for word in words)))
    said = Annotation("S1_20210315_053000.wav", 10.5, 12.0, "Frog sp", True, 400.0, 900.0)
    first = read.annotations[0]
    assert (first.songtype, first.score) == ("Common Song", 0.75)
    assert first == Annotation(**{**vars(said), "songtype": "Common Song", "score": 0.75})
    assert [a.present for a in read.annotations] == [True, False]
    assert (read.format, read.rows, read.unvalidated) == ("arbimon", (2, 3), 1)
    assert [found.what for found in read.findings] == ["unknown verdict 'no idea'"]


def test_a_slices_box_moves_to_its_files_clock(tmp_path):
    read = read_table(export(tmp_path, row(), row(at="5,31"), row(at="7,0")))
    assert starts(read) == [10.5, 70.5, 5410.5]
    assert read.annotations[1].stop == 72.0
    assert not read.findings


def test_a_file_that_crosses_midnight_goes_on(tmp_path):
    name = "S1_20201231_235500.wav"
    rows = [row(name, "2020,12,31", "23,59"), row(name, "2021,1,1", "0,2")]
    assert starts(read_table(export(tmp_path, *rows))) == [250.5, 430.5]
    stuck = row(name, "2020,12,31", "0,2")  # the date of the file, the hour of the slice
    assert starts(read_table(export(tmp_path, stuck))) == [430.5]
    dateless = row(name, ",,", "0,2")
    assert starts(read_table(export(tmp_path, dateless))) == [430.5]


def test_a_row_before_its_file_is_left_out_and_reported(tmp_path):
    read = read_table(export(tmp_path, row(at="5,29"), row(date="2021,3,17")))
    assert not read.annotations
    assert [(f.row, f.serious) for f in read.findings] == [(2, True), (3, True)]
    assert "2021-03-15 05:29:00, which is not in S1_" in read.findings[0].what


def test_seconds_in_the_name_do_not_make_odd_shifts(tmp_path):
    name = "S1_20210315_053012.wav"
    read = read_table(export(tmp_path, row(name), row(name, at="5,32")))
    assert starts(read) == [10.5, 130.5]
    (found,) = read.findings
    assert "between two minutes" in found.what
    assert not read_table(export(tmp_path, row(name))).findings  # nothing was moved


def test_a_name_without_a_time_cannot_place_slices(tmp_path):
    read = read_table(export(tmp_path, row("a.wav"), row("b.wav"), row("b.wav", at="5,31")))
    assert [said.recording for said in read.annotations] == ["a.wav"]
    what = [(found.row, found.serious) for found in read.findings]
    assert what == [(None, False), (3, True), (4, True)]
    assert "1 recording(s), such as a.wav" in read.findings[0].what


def test_a_row_without_a_time_stays_where_it_is_and_is_reported(tmp_path):
    read = read_table(export(tmp_path, row(at=","), row(at="5,31")))
    assert starts(read) == [10.5, 70.5]
    assert "rows without a time" in read.findings[0].what


def test_clocks_hours_apart_are_pointed_out(tmp_path):
    read = read_table(export(tmp_path, row(at="9,30"), row(at="10,0")))
    assert "two time zones" in read.findings[0].what


def test_one_name_at_two_sites_gets_the_site(tmp_path):
    name = "20210315_053000.wav"
    rows = [row(name, site="A"), row(name, site="B"), row(site="A")]
    read = read_table(export(tmp_path, *rows))
    names = [said.recording for said in read.annotations]
    assert names == [f"A/{name}", f"B/{name}", "S1_20210315_053000.wav"]


@pytest.mark.parametrize(
    ("name", "began"),
    [
        ("S1_20210315_053012.wav", "2021-03-15 05:30:12"),
        ("D:\\x\\S4A01234_20210315-0530.flac", "2021-03-15 05:30:00"),
        ("2021-03-15T05-30-12Z.wav", "2021-03-15 05:30:12"),
        ("99999999_999999_20210315_053012.wav", "2021-03-15 05:30:12"),
        ("5E0BE100.WAV", "2020-01-01 00:00:00"),
        ("003bec244.flac", "None"),
        ("dawn.wav", "None"),
        ("DEADBEEF.wav", "None"),
    ],
)
def test_a_name_tells_when_its_recording_began(name, began):
    assert str(start_from_name(name)) == began


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
def test_the_mailed_tables_are_read_in_any_wrapping(tmp_path, shape):
    path = jobs(tmp_path / "jobs", JOB_ROWS)
    if shape == "zip":
        path = shutil.make_archive(str(tmp_path / "mail"), "zip", path)
    elif shape == "nested zip":
        path = shutil.make_archive(str(tmp_path / "mail"), "zip", tmp_path, "jobs")
    elif shape == "one file":
        path = path / "pm_my-job_7.csv"
    read = read_table(tmp_path / path)
    box = ("Frog sp", True, 400.0, 900.0, "human", "Common Song")
    assert read.annotations == (
        Annotation("S1_20210315_053000.wav", 70.5, 72.0, *box, 0.7),
        Annotation("102", 1.0, 2.0, box[0], False, *box[2:]),
    )
    assert (read.format, read.rows, read.unvalidated) == ("arbimon_jobs", (2, 3), 1)


@pytest.mark.parametrize("time", ["1615786320000", "2021-03-15 05:32:00", "2021-03-15T05:32:00Z"])
def test_a_jobs_local_time_is_read_however_it_is_written(tmp_path, time):
    url = "https://x.org/S1_20210315_053000.wav"
    read = read_table(jobs(tmp_path / "jobs", [f"1,400,2,900,0.7,1,5,101,{time},S1,{url}"]))
    assert starts(read) == [121.0]


def test_findings_in_a_zip_are_named_after_the_zip(tmp_path):
    folder = jobs(tmp_path / "jobs", ["12,400,10,900,0.7,1,5,101,---,S1,---"])
    path = shutil.make_archive(str(tmp_path / "mail"), "zip", folder)
    (found,) = read_table(tmp_path / path).findings
    assert found.file == f"{path}/pm_my-job_7.csv"
    assert found.row == 2
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("x.png", "")
    with pytest.raises(UserError, match=r"empty\.zip: no annotation table"):
        read_table(tmp_path / "empty.zip")


def test_a_job_that_the_summary_does_not_name_is_left_out_and_reported(tmp_path):
    read = read_table(jobs(tmp_path / "jobs", JOB_ROWS, job=8))
    assert not read.annotations
    assert any(f.serious and "3 rows are left out" in f.what for f in read.findings)
    assert not [f for f in read.findings if f.row]  # one finding for the job, not one a row
    (tmp_path / "jobs" / "_pattern_matching.csv").unlink()
    with pytest.raises(UserError, match="which names the species, is missing"):
        read_table(tmp_path / "jobs")


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


def test_the_backups_tables_are_joined_by_their_numbers(tmp_path):
    read = read_table(backup(tmp_path / "backup"))
    box = ("Frog sp", True, 400.0, 900.0, "human", "Common Song")
    assert read.annotations == (
        Annotation("S1_20210315_053000.wav", 70.5, 72.0, *box, 0.7),
        Annotation("other_20210315_053100.flac", 1.0, 2.0, box[0], False, *box[2:], 0.6),
    )
    assert (read.format, read.rows, read.unvalidated) == ("arbimon_backup", (2, 2), 1)
    what = [(f.row, f.what) for f in read.findings]
    assert what == [
        (3, "recording 99 is not in the backup's tables"),
        (4, "species 9 is not in the backup's tables"),
    ]
    part = read_table(tmp_path / "backup" / "pattern_matching_rois.0001.csv")
    assert part.annotations == read.annotations[:1]


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("arbimon", "export.csv"),
        ("arbimon_jobs", "mail.zip"),
        ("arbimon_jobs", "mail"),
        ("arbimon_backup", "backup"),
    ],
)
def test_read_write_read_gives_the_same_annotations(tmp_path, format, name):
    rng = np.random.default_rng(8)
    said = [
        Annotation(
            ["S1_20210315_053012.wav", "dawn.flac", "north/x.wav"][i % 3],
            float(start),
            float(start + rng.exponential()),
            f"Frog {i % 4}",
            present=bool(i % 2),
            low=float(rng.uniform(0, 500)),
            high=float("inf") if i % 6 == 0 else float(rng.uniform(600, 4e4)),
            songtype=["", "trill"][i % 2],
            score=None if i % 5 == 0 else float(rng.random()),
        )
        for i, start in enumerate(rng.uniform(0, 5000, 120))
    ]
    write_table(said, tmp_path / name, format)
    read = read_table(tmp_path / name)
    assert read.format == format
    assert sorted(map(str, read.annotations)) == sorted(map(str, said))
    assert not [found for found in read.findings if found.serious]


def test_a_packet_is_not_written_over_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        write_table([Annotation("a", 0, 1, "x")], tmp_path, "arbimon_backup")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
