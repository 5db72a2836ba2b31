"""Inputs on which a fuzz target (fuzz/) once failed, each with what it gives now."""

import struct
import zipfile

import pytest

from antpitta.api import evaluate_events
from antpitta.core.errors import UserError
from antpitta.files.audio import UnreadableAudio, probe
from antpitta.files.formats import read_table
from antpitta.files.recording_metadata import read_metadata

ARBIMON = "recording,site,year,month,day,hour,min,species,x1,x2,y1,y2,frequency,validated\n"


def test_minute_of_arbimon_beyond_all_time_is_a_finding(tmp_path):
    path = tmp_path / "export.csv"
    rows = (
        f"S4A_20240501_050012.wav,a,2024,5,1,5,{'8' * 34},Coqui,1,2,100,2000,24000,present\n"
        "S4A_20240501_050012.wav,a,2024,5,1,25,0,Coqui,1,2,100,2000,24000,present\n"
        "S4A_20240501_050012.wav,a,2024,5,1,5,1,Coqui,1,2,100,2000,24000,present\n"
    )
    path.write_text(ARBIMON + rows)
    table = read_table(path)
    assert [(box.start, box.stop) for box in table.annotations] == [(61.0, 62.0)]
    assert [(f.code, f.row) for f in table.findings if f.serious] == [
        ("W_SLICE_CLOCK", 2),
        ("W_SLICE_CLOCK", 3),
    ]


def test_zip_with_a_member_without_a_name_is_refused(tmp_path):
    path = tmp_path / "tables.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("name", "1.0\t2.0\tfrog\n")
    path.write_bytes(path.read_bytes().replace(b"name", b"\0\0\0\0"))
    with pytest.raises(UserError) as error:
        read_table(path)
    assert error.value.code == "E_BAD_ZIP"


def test_event_without_a_file_is_no_event_of_a_recording(tmp_path):
    (tmp_path / "presence.csv").write_text("recording_id,frog\ndawn,0.5\n")
    header = "file,start_time,end_time,low_freq,high_freq,species,score,model,verdict\n"
    event = "1,2,0,9,frog,0.9,m,\n"
    (tmp_path / "events.csv").write_text(f"{header},{event}/a/dawn.wav,{event}")
    (tmp_path / "calls.csv").write_text(
        "recording,start_time,end_time,species,verdict\ndawn,1,2,frog,yes\n"
    )
    table = evaluate_events(tmp_path, tmp_path / "calls.csv").set_index("species")
    assert table.loc["frog", ["tp", "fp", "fn"]].tolist() == [1, 0, 0]


def test_wav_with_samples_of_no_bytes_is_unreadable(tmp_path):
    path = tmp_path / "S4A_20240501_050000.wav"
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 0, 0, 0)
    body = b"WAVE" + head + b"data" + struct.pack("<I", 400) + b"\1" * 400
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert read_metadata(path).problems == ()
    with pytest.raises(UnreadableAudio):
        probe(path, "a")


def test_job_of_arbimon_whose_url_is_none_has_the_number_of_its_recording(tmp_path):
    (tmp_path / "_pattern_matching.csv").write_text("job_id,scientific_name\n1,Coqui\n")
    (tmp_path / "pm_x_1.csv").write_text(
        "x1,y1,x2,y2,validated,recording_id,recording_local_time,audio_url\n"
        "1,100,2,2000,1,5,,https://[min]/a.wav\n"
    )
    (box,) = read_table(tmp_path).annotations
    assert (box.recording, box.label, box.present) == ("5", "Coqui", True)


def test_event_whose_time_is_no_number_is_an_error_that_names_the_table(tmp_path):
    (tmp_path / "presence.csv").write_text("recording_id,frog\ndawn,0.5\n")
    header = "file,start_time,end_time,low_freq,high_freq,species,score,model,verdict\n"
    (tmp_path / "events.csv").write_text(f"{header}/a/dawn.wav,2520-06-07,2,0,9,frog,0.9,m,\n")
    (tmp_path / "calls.csv").write_text(
        "recording,start_time,end_time,species,verdict\ndawn,1,2,frog,yes\n"
    )
    with pytest.raises(UserError, match=r"events\.csv") as error:
        evaluate_events(tmp_path, tmp_path / "calls.csv")
    assert error.value.code == "E_EVENT_TABLE"
