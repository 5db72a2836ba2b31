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
        ("x_18190522_000000.wav", "x", None),
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
    metadata = read_metadata(path)
    assert (metadata.site, metadata.recorded_at) == ("x", when(2019, 1, 1))
    assert len(metadata.problems) == 1
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
    assert read_wav_chunks(tmp_path / "b.wav").format is None


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


ZONE10 = timezone(timedelta(hours=10))


@pytest.mark.parametrize(
    ("name", "site", "recorded_at"),
    [
        (
            "S20240815T072552.148+1000_E20240815T073052.148+1000_+12.34567+78.90123.wav",
            None,
            when(2024, 8, 15, 7, 25, 52, 148000, zone=ZONE10),
        ),
        ("20210328T020000+1000_REC [-27.5 153.0].flac", None, when(2021, 3, 28, 2, zone=ZONE10)),
        ("20210328T020000+10.flac", None, when(2021, 3, 28, 2, zone=ZONE10)),
        (
            "SW1_20230501_050000_-0400.wav",
            "SW1",
            when(2023, 5, 1, 5, zone=timezone(-timedelta(hours=4))),
        ),
        ("SW1_20230501_050000UTC.wav", "SW1", when(2023, 5, 1, 5, zone=UTC)),
        ("5678.220501050000.wav", "5678", when(2022, 5, 1, 5)),
        ("BAR7_20150720_000000.wav", "BAR7", when(2015, 7, 20)),
        ("x_20190522T000000+2500.wav", "x", None),
        ("x_20190522T000000+1007.wav", "x", None),
    ],
)
def test_names_of_more_recorders_keep_their_zones_or_give_no_time(name, site, recorded_at):
    metadata = metadata_from_name(name)
    assert (metadata.site, metadata.recorded_at) == (site, recorded_at)
    if recorded_at:
        assert metadata.recorded_at.utcoffset() == recorded_at.utcoffset()
        assert not metadata.problems
    else:
        assert len(metadata.problems) == 1


@pytest.mark.parametrize(
    "timestamp",
    [
        "2020-06-07T05:15:00+25:00",
        "2020-06-07T05:15:00+10:07",
        "9999-12-31T23:59:59",
        "2300-01-01T00:00:00",
        "0001-01-01T00:00:00Z",
        "2020-13-07T05:15:00",
        "2020-06-07T25:15:00",
        "2020-06-07",
        "1591506900",
        "\ufffd" * 300,
    ],
)
def test_guano_timestamp_that_is_none_is_a_problem_and_no_time(tmp_path, timestamp):
    path = write_wav(tmp_path / "dawn.wav", guano_chunk(f"Timestamp: {timestamp}"))
    metadata = read_metadata(path)
    assert metadata.recorded_at is None
    assert len(metadata.problems) == 1


@pytest.mark.parametrize(
    ("timestamp", "recorded_at"),
    [
        ("2020-06-07T05:15:00.1234567-05:00", when(2020, 6, 7, 5, 15, 0, 123456, zone=EASTERN)),
        ("2020-06-07T05:15:00.5Z", when(2020, 6, 7, 5, 15, 0, 500000, zone=UTC)),
        ("2020-06-07 05:15:00-0500", when(2020, 6, 7, 5, 15, zone=EASTERN)),
    ],
)
def test_guano_timestamp_with_fraction_keeps_its_zone(tmp_path, timestamp, recorded_at):
    path = write_wav(tmp_path / "dawn.wav", guano_chunk(f"Timestamp: {timestamp}"))
    metadata = read_metadata(path)
    assert metadata.recorded_at == recorded_at
    assert metadata.recorded_at.utcoffset() == recorded_at.utcoffset()
    assert not metadata.problems


@pytest.mark.parametrize(
    ("name", "timestamp", "problems"),
    [
        ("x_20200607_051500.wav", "2020-06-07T05:15:00-05:00", 0),  # local time
        ("x_20200607_101500.wav", "2020-06-07T05:15:00-05:00", 0),  # UTC
        ("x_20200607_101530Z.wav", "2020-06-07T05:15:00-05:00", 0),
        ("x_20200607_051500.wav", "2020-06-07T05:15:30", 0),
        ("x_20200607_061500.wav", "2020-06-07T05:15:00-05:00", 1),
        ("x_20200607_051500Z.wav", "2020-06-07T05:15:00-05:00", 1),
        ("x_20200608_051500.wav", "2020-06-07T05:15:00", 1),
    ],
)
def test_header_and_name_that_disagree_are_a_problem(tmp_path, name, timestamp, problems):
    path = write_wav(tmp_path / name, guano_chunk(f"Timestamp: {timestamp}"))
    assert len(read_metadata(path).problems) == problems


@pytest.mark.parametrize(
    ("comment", "recorded_at", "problems", "triggered"),
    [
        ("Recorded at 05:15:00 07/06/2020 by AudioMoth 24F319055FDF2F5B at gain setting 2",
         when(2020, 6, 7, 5, 15, zone=UTC), 0, False),
        ("Recorded at 05:15:00 07/06/2020 (UTC) by AudioMoth 24F319055FDF2F5B at medium gain. "
         "Amplitude threshold was 512 with 1s minimum trigger duration.",
         when(2020, 6, 7, 5, 15, zone=UTC), 0, True),
        ("Recorded at 05:15:00 07/06/2020 (UTC+25) by AudioMoth 24F319055FDF2F5B", None, 1, False),
        ("Recorded at 5 o'clock by AudioMoth 24F319055FDF2F5B", None, 1, False),
        ("Recorded at 00:00:00 01/01/1970 (UTC) by AudioMoth 24F319055FDF2F5B", None, 1, False),
    ],
)  # fmt: skip
def test_audiomoth_comment_of_other_firmwares(comment, recorded_at, problems, triggered):
    metadata = metadata_from_comment(comment)
    assert metadata.recorded_at == recorded_at
    assert (len(metadata.problems), metadata.triggered) == (problems, triggered)
    assert metadata_from_name("20200607_051500T.WAV").triggered
    assert not metadata_from_name("20200607_051500.WAV").triggered


@pytest.mark.parametrize(
    ("start", "recorded_at", "problems"),
    [
        ("2021-03-28T02:00:00+10:00", when(2021, 3, 28, 2, zone=ZONE10), 0),
        ("2021-03-28T05:00:00+1000", when(2021, 3, 28, 5, zone=ZONE10), 1),  # the name has 02:00
        ("never", when(2021, 3, 28, 2, zone=ZONE10), 1),
    ],
)
def test_fields_of_frontier_labs_are_read_from_a_flac(tmp_path, start, recorded_at, problems):
    path = tmp_path / "20210328T020000+1000_REC.flac"
    sf.write(path, np.zeros(8000), 8000)
    entries = [f"RecordingStart={start}".encode(), b"SensorUid=0012", b"odd \xff"]
    comments = struct.pack("<II", 0, len(entries))
    comments += b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    raw = path.read_bytes()
    block = b"\x04" + len(comments).to_bytes(3, "big") + comments
    path.write_bytes(raw[:42] + block + raw[42:])  # behind the STREAMINFO
    metadata = read_metadata(path)
    assert metadata.recorded_at == recorded_at
    assert (metadata.recorder, len(metadata.problems)) == ("0012", problems)


def test_metadata_behind_the_sound_of_an_rf64_is_read(tmp_path):
    path = tmp_path / "a.wav"
    sf.write(path, np.zeros(1000), 8000, format="RF64", subtype="PCM_16")
    chunks = [comment_chunk("nothing"), guano_chunk("Timestamp: 2020-06-07T05:15:00Z")]
    raw = path.read_bytes()
    for name, content in chunks:
        raw += struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
    path.write_bytes(raw)
    assert read_metadata(path).recorded_at == when(2020, 6, 7, 5, 15, zone=UTC)


@pytest.mark.parametrize(
    ("name", "site", "problem"),
    [
        ("SITE_20240230_053000.wav", "SITE", "20240230_053000"),
        ("SITE_23000101_000000.wav", "SITE", "23000101_000000"),
        ("19700101_000012.WAV", None, "19700101_000012"),
        ("S4A03895_20001331$053000.wav", None, None),
        ("12345678_123456.wav", None, None),
    ],
)
def test_time_in_a_name_that_no_calendar_has_is_a_problem(name, site, problem):
    metadata = metadata_from_name(name)
    assert (metadata.site, metadata.recorded_at) == (site, None)
    assert [text.split()[0] for text in metadata.problems] == [problem] * (problem is not None)


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("20190401T053000+1000_REC [-27.1 153.2].flac", "-27.100 153.200"),
        ("20190401T053000+1000_REC [-27.1234+153.2345].flac", "-27.123 153.234"),
        ("S20240815T092156.785867+1000_E20240815T092214.785867+1000_-12.34567+78.90123.wav",
         "-12.346 78.901"),
        ("20190401T053000+1000_REC [-97.1 153.2].flac", None),
        ("20190401T053000+1000_REC.flac", None),
    ],
)  # fmt: skip
def test_position_in_a_name_of_frontier_labs_is_read(name, position):
    assert metadata_from_name(name).position == position


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def write_chunks(path, *chunks, pcm=b"\1\0" * 8000):
    body = b"WAVE" + chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
    body += b"".join(chunks) + chunk(b"data", pcm)
    path.write_bytes(chunk(b"RIFF", body))
    return path


def wamd(**fields):
    numbers = {"serial": 2, "station": 4, "time": 5, "position": 6}
    parts = [struct.pack("<HI", numbers[k], len(v)) + v.encode() for k, v in fields.items()]
    return chunk(b"wamd", struct.pack("<HIH", 0, 2, 1) + b"".join(parts))


def test_chunk_of_wildlife_acoustics_gives_station_time_and_position(tmp_path):
    content = wamd(serial="SMM00123", station="POND", time="2024-05-01 05:00:00-03:30")
    metadata = read_metadata(write_chunks(tmp_path / "POND_20240501_050000.wav", content))
    assert (metadata.site, metadata.problems) == ("POND", ())
    assert metadata.recorded_at.isoformat() == "2024-05-01T05:00:00-03:30"
    content = wamd(time="2024-05-01 05:00:00", position="WGS84,12.50000,N,3.25000,W")
    metadata = read_metadata(write_chunks(tmp_path / "b.wav", content))
    assert (metadata.site, metadata.recorded_at.tzinfo) == ("12.500 -3.250", None)
    content = wamd(time="2024-05-01 05:00:00+25:00", station="POND")
    metadata = read_metadata(write_chunks(tmp_path / "c.wav", content))
    assert metadata.recorded_at is None
    assert len(metadata.problems) == 1
    assert read_metadata(write_chunks(tmp_path / "d.wav", chunk(b"wamd", b"\4\0\xff"))).site is None


def test_sites_and_clocks_that_disagree_are_problems(tmp_path):
    guano = chunk(b"guan", b"WA|Prefix: POND\nTimestamp: 2024-05-01T05:00:00")
    other = chunk(b"guan", b"WA|Prefix: LAKE\nTimestamp: 2024-05-01T05:00:00")
    late = wamd(time="2024-05-02 05:00:00")
    cases = (
        ("LAKE_20240501_050000.wav", (guano,), ["POND", "LAKE"]),
        ("pond_20240501_050000.wav", (guano,), []),
        ("a.wav", (other, guano), ["several GUANO"]),
        ("b.wav", (guano, late), ["GUANO", "WAMD"]),
    )
    for name, chunks, words in cases:
        metadata = read_metadata(write_chunks(tmp_path / name, *chunks))
        assert metadata.site == "POND"
        assert len(metadata.problems) == bool(words)
        assert all(word in metadata.problems[0] for word in words)


def test_recorders_serial_number_in_the_name_is_no_other_site(tmp_path):
    guano = chunk(b"guan", b"WA|Prefix: POND\nSerial: S4A03895")
    metadata = read_metadata(write_chunks(tmp_path / "S4A03895_20240501_050000.wav", guano))
    assert (metadata.site, metadata.problems) == ("POND", ())


@pytest.mark.parametrize("comment", [True, False])
def test_triggered_recording_with_gaps_has_no_clock_and_their_length(tmp_path, comment):
    def silence(blocks):
        bits = [1 if blocks >> i & 1 else -1 for i in range(32)]
        return np.array(bits + [0] * 224, "<i2").tobytes()

    sound = np.random.default_rng(0).integers(-900, 900, 256 * 9, dtype=np.int16).tobytes()
    text = b"Recorded at 05:00:00 01/05/2024 (UTC) by AudioMoth 24F319055FDF0001 threshold"
    info = chunk(b"LIST", b"INFO" + chunk(b"ICMT", text)) if comment else b""
    pad = chunk(b"JUNK", bytes(512 - (12 + 24 + len(info) + 8 + 8)))
    pcm = sound + silence(1000) + sound + silence(1 << 20) + sound
    path = write_chunks(tmp_path / "20240501_050000T.WAV", info, pad, pcm=pcm)
    metadata = read_metadata(path)
    assert (metadata.triggered, metadata.recorded_at) == (True, None)
    assert metadata.left_out == pytest.approx((1000 + (1 << 20) - 2) * 256 / 8000)
    whole = read_metadata(write_chunks(tmp_path / "20240501_060000T.WAV", pad, pcm=sound))
    assert (whole.left_out, whole.recorded_at.hour) == (0.0, 6)


@pytest.mark.parametrize(
    ("name", "origination", "recorded_at", "problems"),
    [
        ("a.wav", b"2024-05-0105:30:00", when(2024, 5, 1, 5, 30), 0),
        ("a.wav", b"2024:05:0105-30-00", when(2024, 5, 1, 5, 30), 0),
        ("S1_20240501_053000.wav", b"2024-05-0105:30:01", when(2024, 5, 1, 5, 30), 0),
        ("S1_20240501_053000.wav", b"2025-01-0712:00:00", when(2024, 5, 1, 5, 30), 1),
        ("a.wav", b"0000-00-0000:00:00", None, 0),
        ("a.wav", b"2024-02-3005:30:00", None, 0),
        ("a.wav", b"\0" * 18, None, 0),
        ("a.wav", b"2024-05-01", None, 0),
        ("a.wav", b"\xff" * 18, None, 0),
    ],
)
def test_origination_of_a_broadcast_wave_is_the_last_source_of_a_clock(
    tmp_path, name, origination, recorded_at, problems
):
    content = bytes(320) + origination.ljust(282, b"\0")
    write_wav(tmp_path / name, (b"bext", content))
    metadata = read_metadata(tmp_path / name)
    assert (metadata.recorded_at, len(metadata.problems)) == (recorded_at, problems)
