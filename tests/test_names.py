import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePath

import numpy as np
import pytest
import soundfile as sf

from antpitta.files.recording_metadata import (
    metadata_from_comment,
    metadata_from_name,
    read_metadata,
    site_from_folder,
)
from antpitta.files.wav_chunks import read_wav_chunks


def when(*parts, zone=None):
    return datetime(*parts, tzinfo=zone)


EASTERN = timezone(timedelta(hours=-5))


@pytest.mark.parametrize(
    ("name", "site", "began"),
    [
        ("20200607_051500.WAV", None, when(2020, 6, 7, 5, 15)),
        ("20200607_051500T.WAV", None, when(2020, 6, 7, 5, 15)),
        ("20200607_051500_000.WAV", None, when(2020, 6, 7, 5, 15)),
        ("24F319055FDF2F5B_20200607_051500.WAV", "24F319055FDF2F5B", when(2020, 6, 7, 5, 15)),
        ("5EDC5A34.WAV", None, when(2020, 6, 7, 3, 8, 36, zone=UTC)),
        ("SITE_20190522_000000.wav", "SITE", when(2019, 5, 22)),
        ("S4A03895_20190522_220000.wav", "S4A03895", when(2019, 5, 22, 22)),
        ("FOREST-2_0+1_20190522_000000.wav", "FOREST-2", when(2019, 5, 22)),
        ("FOREST_1-_20190522$013000.wav", "FOREST", when(2019, 5, 22, 1, 30)),
        ("FOREST_-0_20190522_000000_012.wav", "FOREST", when(2019, 5, 22)),
        ("SITE_01_20190522_000000.wav", "SITE_01", when(2019, 5, 22)),
        (
            "arbimon_default-2014-08-25_17-30.flac",
            "arbimon_default",
            when(2014, 8, 25, 17, 30),
        ),
        ("plot 7 2014-08-25 17.30.59.mp3", "plot 7", when(2014, 8, 25, 17, 30, 59)),
        (
            "20190522T000000+1000_REC.flac",
            None,
            when(2019, 5, 22, zone=timezone(timedelta(hours=10))),
        ),
        ("x_20190522T000000-0500.wav", "x", when(2019, 5, 22, zone=EASTERN)),
        ("x_20190522T000000Z.wav", "x", when(2019, 5, 22, zone=UTC)),
        ("x_20190522_0430.wav", "x", when(2019, 5, 22, 4, 30)),
        ("x_20190522043000.wav", "x", when(2019, 5, 22, 4, 30)),
        ("x_20190522_000000-1234.wav", "x", when(2019, 5, 22)),
        ("003bec244.flac", None, None),
        ("6AB765FA.wav", None, None),
        ("20200607.wav", None, None),
        ("XC123456.mp3", None, None),
        ("x_20191322_000000.wav", None, None),
        ("x_18190522_000000.wav", None, None),
        ("x_201905220000001.wav", None, None),
    ],
)
def test_a_name_tells_site_and_time(name, site, began):
    told = metadata_from_name(name)
    assert told.site == site
    assert told.recorded_at == began
    if began:
        assert told.recorded_at.utcoffset() == began.utcoffset()


@pytest.mark.parametrize(
    ("comment", "began", "recorder"),
    [
        (
            "Recorded at 05:15:00 07/06/2020 (UTC) by AudioMoth 24F319055FDF2F5B at gain setting 2",
            when(2020, 6, 7, 5, 15, zone=UTC),
            "24F319055FDF2F5B",
        ),
        (
            "Recorded at 05:15:00.500 07/06/2020 (UTC-5) by AudioMoth 24F319055FDF2F5B at medium",
            when(2020, 6, 7, 5, 15, zone=EASTERN),
            "24F319055FDF2F5B",
        ),
        (
            "Recorded at 05:15:00 07/06/2020 (UTC+5:30) during deployment 0123456789ABCDEF",
            when(2020, 6, 7, 5, 15, zone=timezone(timedelta(hours=5.5))),
            None,
        ),
        (
            "Recorded at 05:15:00 07/06/2020 (UTC-3:30) by AudioMoth 24F319055FDF2F5B",
            when(2020, 6, 7, 5, 15, zone=timezone(timedelta(hours=-3.5))),
            "24F319055FDF2F5B",
        ),
        (
            "Recorded at 05:15:00 31/02/2020 (UTC) by AudioMoth 24F319055FDF2F5B",
            None,
            "24F319055FDF2F5B",
        ),
        ("dawn chorus at the pond", None, None),
        ("", None, None),
    ],
)
def test_an_audiomoths_comment_tells_time_zone_and_recorder(comment, began, recorder):
    told = metadata_from_comment(comment)
    assert (told.recorded_at, told.recorder) == (began, recorder)


def wav(path, *chunks, **how):
    """A WAV with more chunks behind its sound."""
    sf.write(path, np.zeros(101), 8000, format="WAV", **how)
    raw = path.read_bytes()
    for name, content in chunks:
        raw += struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
    path.write_bytes(raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:])
    return path


def info(comment):
    text = comment.encode() + b"\0"
    return b"LIST", b"INFOIART\x03\0\0\0abc\0ICMT" + struct.pack("<I", len(text)) + text


def guano(*lines):
    return b"guan", "\n".join(("GUANO|Version: 1.0", *lines)).encode()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_guano_goes_before_the_name(tmp_path, subtype):
    path = wav(
        tmp_path / "OLD_20200101_000000.wav",
        guano("Timestamp: 2020-06-07T05:15:00-05:00", "WA|Song Meter|Prefix: POND"),
        subtype=subtype,
    )
    told = read_metadata(path)
    assert (told.site, told.recorded_at) == ("POND", when(2020, 6, 7, 5, 15, zone=EASTERN))
    assert told.recorded_at.isoformat() == "2020-06-07T05:15:00-05:00"


def test_a_position_is_a_site_where_the_name_has_none_and_its_jitter_is_not(tmp_path):
    a = wav(tmp_path / "20200607_051500.wav", guano("Loc Position: -3.12341 -60.45602"))
    b = wav(tmp_path / "20200607_052500.wav", guano("Loc Position: -3.12299 -60.45639"))
    named = wav(tmp_path / "POND_20200607_051500.wav", guano("Loc Position: -3.1 -60.4"))
    assert read_metadata(a).site == read_metadata(b).site == "-3.123 -60.456"
    assert read_metadata(named).site == "POND"


@pytest.mark.parametrize(
    ("stamp", "began"),
    [
        ("2020-06-07T05:15:00Z", when(2020, 6, 7, 5, 15, zone=UTC)),
        ("2020-06-07T05:15:00", when(2020, 6, 7, 5, 15)),
        ("2020-06-07 05:15:00.5", when(2020, 6, 7, 5, 15, 0, 500000)),
        ("yesterday", when(2019, 1, 1)),
    ],
)
def test_guanos_times_are_read_and_a_bad_one_leaves_the_name(tmp_path, stamp, began):
    path = wav(tmp_path / "x_20190101_000000.wav", guano(f"Timestamp: {stamp}"))
    assert read_metadata(path).recorded_at == began


def test_metadata_that_is_broken_leaves_the_name(tmp_path):
    path = wav(tmp_path / "x_20190101_000000.wav", (b"guan", b"no colon here"))
    assert read_metadata(path) == metadata_from_name(path.name)
    assert read_metadata(tmp_path / "none_20190101_000000.wav").site == "none"


def test_an_audiomoths_comment_is_found_in_its_file(tmp_path):
    comment = "Recorded at 05:15:00 07/06/2020 (UTC) by AudioMoth 24F319055FDF2F5B at gain"
    told = read_metadata(wav(tmp_path / "20200607_051500.WAV", info(comment)))
    assert told.recorded_at == when(2020, 6, 7, 5, 15, zone=UTC)
    assert told.recorded_at.utcoffset() is not None
    assert (told.site, told.recorder) == (None, "24F319055FDF2F5B")


def test_other_lists_and_other_files_say_nothing(tmp_path):
    path = wav(tmp_path / "a.wav", (b"LIST", b"adtlabcd"), (b"LIST", b"INFOIART\x02\0\0\0ab"))
    assert read_wav_chunks(path).comment == ""
    (tmp_path / "b.wav").write_bytes(b"RIFX")
    assert read_wav_chunks(tmp_path / "b.wav").missing == 0


def test_a_wav_that_was_cut_short_tells_how_much_it_lacks(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, np.zeros(8000), 8000)
    assert read_wav_chunks(path).missing == 0
    path.write_bytes(path.read_bytes()[: 44 + 4000])
    assert read_wav_chunks(path).missing == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("POND", "POND"),
        ("POND/Data", "POND"),
        ("POND/2020-06-07/100MEDIA", "POND"),
        ("2020/POND", "POND"),
        ("north/7", "7"),
        ("Data/20200607", None),
        (".", None),
    ],
)
def test_the_innermost_folder_that_tells_anything_names_the_site(folder, name):
    assert site_from_folder(PurePath(folder)) == name
