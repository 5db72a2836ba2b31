"""Site and time of a recording, from its name, its comment, GUANO and its folder."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePath

import numpy as np
import pytest
import soundfile as sf

from antpitta.files.formats.arbimon import file_starts
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
    ("name", "site", "recorded_at"),
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
        ("x_201905220430.wav", "x", when(2019, 5, 22, 4, 30)),
        ("x_20190522_04-30-12.wav", "x", when(2019, 5, 22, 4, 30, 12)),
        ("69C0F3A0.WAV", None, when(2026, 3, 23, 8, 2, 40, zone=UTC)),
        ("S4A_20190522$053000.wav", "S4A", when(2019, 5, 22, 5, 30)),
        ("S1_20210315_053012.wav", "S1", when(2021, 3, 15, 5, 30, 12)),
        ("D:\\x\\S4A01234_20210315-0530.flac", "S4A01234", when(2021, 3, 15, 5, 30)),
        ("north/S1_20210315_053012.wav", "S1", when(2021, 3, 15, 5, 30, 12)),
        ("2021-03-15T05-30-12Z.wav", None, when(2021, 3, 15, 5, 30, 12, zone=UTC)),
        (
            "99999999_999999_20210315_053012.wav",
            "99999999_999999",
            when(2021, 3, 15, 5, 30, 12),
        ),
        ("5E0BE100.WAV", None, when(2020, 1, 1, zone=UTC)),
        ("6AB765FA.wav", None, when(2026, 9, 26, 6, 28, 10, zone=UTC)),
        (
            "20210328T040000+1000_REC.flac",
            None,
            when(2021, 3, 28, 4, zone=timezone(timedelta(hours=10))),
        ),
        ("S1_20240501_050000.wav", "S1", when(2024, 5, 1, 5)),
        ("x_20190522_000000-1234.wav", "x", when(2019, 5, 22)),
        ("003bec244.flac", None, None),
        ("DEADBEEF.wav", None, None),
        ("69c0f3a0.wav", None, None),
        ("59123456.WAV", None, None),
        ("guano_9999.wav", None, None),
        ("dawn.wav", None, None),
        ("20200607.wav", None, None),
        ("XC123456.mp3", None, None),
        ("x_20191322_000000.wav", None, None),
        ("x_18190522_000000.wav", None, None),
        ("x_201905220000001.wav", None, None),
    ],
)
def test_name_of_a_recorder_gives_site_and_time(name, site, recorded_at):
    metadata = metadata_from_name(name)
    assert metadata.site == site
    assert metadata.recorded_at == recorded_at
    if recorded_at:
        assert metadata.recorded_at.utcoffset() == recorded_at.utcoffset()


@pytest.mark.parametrize(
    ("name", "recorded_at"),
    [
        ("69C0F3A0.WAV", when(2026, 3, 23, 8, 2, 40)),
        ("S4A_20190522$053000.wav", when(2019, 5, 22, 5, 30)),
    ],
)
def test_name_is_read_alike_for_recordings_and_for_slices(tmp_path, name, recorded_at):
    assert read_metadata(tmp_path / name).recorded_at.replace(tzinfo=None) == recorded_at
    assert file_starts(np.array([name], dtype=object)).tolist() == [recorded_at]


@pytest.mark.parametrize(
    ("comment", "recorded_at", "recorder"),
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
def test_audiomoth_comment_gives_time_with_zone_and_recorder(comment, recorded_at, recorder):
    metadata = metadata_from_comment(comment)
    assert (metadata.recorded_at, metadata.recorder) == (recorded_at, recorder)


def write_wav(path, *chunks, **options):
    """A WAV with more chunks after its sound."""
    sf.write(path, np.zeros(101), 8000, format="WAV", **options)
    raw = path.read_bytes()
    for name, content in chunks:
        raw += struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
    path.write_bytes(raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:])
    return path


def comment_chunk(comment):
    text = comment.encode() + b"\0"
    return b"LIST", b"INFOIART\x03\0\0\0abc\0ICMT" + struct.pack("<I", len(text)) + text


def guano_chunk(*lines):
    return b"guan", "\n".join(("GUANO|Version: 1.0", *lines)).encode()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_guano_chunk_wins_over_the_name(tmp_path, subtype):
    path = write_wav(
        tmp_path / "OLD_20200101_000000.wav",
        guano_chunk("Timestamp: 2020-06-07T05:15:00-05:00", "WA|Song Meter|Prefix: POND"),
        subtype=subtype,
    )
    metadata = read_metadata(path)
    assert (metadata.site, metadata.recorded_at) == ("POND", when(2020, 6, 7, 5, 15, zone=EASTERN))
    assert metadata.recorded_at.isoformat() == "2020-06-07T05:15:00-05:00"


def test_guano_position_is_the_site_of_names_without_one_and_jitter_makes_no_new_site(tmp_path):
    a = write_wav(tmp_path / "20200607_051500.wav", guano_chunk("Loc Position: -3.12341 -60.45602"))
    b = write_wav(tmp_path / "20200607_052500.wav", guano_chunk("Loc Position: -3.12299 -60.45639"))
    named = write_wav(
        tmp_path / "POND_20200607_051500.wav", guano_chunk("Loc Position: -3.1 -60.4")
    )
    assert read_metadata(a).site == read_metadata(b).site == "-3.123 -60.456"
    assert read_metadata(named).site == "POND"


@pytest.mark.parametrize(
    ("timestamp", "recorded_at"),
    [
        ("2020-06-07T05:15:00Z", when(2020, 6, 7, 5, 15, zone=UTC)),
        ("2020-06-07T05:15:00", when(2020, 6, 7, 5, 15)),
        ("2020-06-07 05:15:00.5", when(2020, 6, 7, 5, 15, 0, 500000)),
        ("yesterday", when(2019, 1, 1)),
    ],
)
def test_guano_timestamp_is_read_and_a_bad_one_falls_back_to_the_name(
    tmp_path, timestamp, recorded_at
):
    path = write_wav(tmp_path / "x_20190101_000000.wav", guano_chunk(f"Timestamp: {timestamp}"))
    assert read_metadata(path).recorded_at == recorded_at


def test_broken_guano_chunk_falls_back_to_the_name(tmp_path):
    path = write_wav(tmp_path / "x_20190101_000000.wav", (b"guan", b"no colon here"))
    assert read_metadata(path) == metadata_from_name(path.name)
    assert read_metadata(tmp_path / "none_20190101_000000.wav").site == "none"


def test_audiomoth_comment_is_found_in_its_file(tmp_path):
    comment = "Recorded at 05:15:00 07/06/2020 (UTC) by AudioMoth 24F319055FDF2F5B at gain"
    path = write_wav(tmp_path / "20200607_051500.WAV", comment_chunk(comment))
    metadata = read_metadata(path)
    assert metadata.recorded_at == when(2020, 6, 7, 5, 15, zone=UTC)
    assert metadata.recorded_at.utcoffset() is not None
    assert (metadata.site, metadata.recorder) == (None, "24F319055FDF2F5B")


def test_other_chunks_and_other_files_give_nothing(tmp_path):
    path = write_wav(tmp_path / "a.wav", (b"LIST", b"adtlabcd"), (b"LIST", b"INFOIART\x02\0\0\0ab"))
    assert read_wav_chunks(path).comment == ""
    (tmp_path / "b.wav").write_bytes(b"RIFX")
    assert read_wav_chunks(tmp_path / "b.wav").missing_share == 0


def test_wav_that_is_cut_short_gives_the_missing_share(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, np.zeros(8000), 8000)
    assert read_wav_chunks(path).missing_share == 0
    path.write_bytes(path.read_bytes()[: 44 + 4000])
    assert read_wav_chunks(path).missing_share == pytest.approx(0.75)


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
def test_innermost_folder_that_is_not_generic_names_the_site(folder, name):
    assert site_from_folder(PurePath(folder)) == name
