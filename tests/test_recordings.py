"""Recordings in folders: ids, sites, the table of sites, matching by name, short names."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.core.types import Recording
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher, drop_rivals
from antpitta.files.recordings import find_recordings, short_names, short_path_names


@pytest.fixture
def sounds(tmp_path):
    def save(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, np.zeros(800), 8000)
        return tmp_path

    return save


def ids(*roots):
    return [recording.id for recording in find_recordings(roots).recordings]


def test_every_recording_is_found_and_hidden_or_other_files_are_not(sounds):
    home = sounds("b.wav", "deep/er/a.FLAC", "c.ogg", "d.au")
    for name in ("._b.wav", ".Trash/d.wav", "notes.txt"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(b"not sound")
    result = find_recordings([home])
    assert [recording.id for recording in result.recordings] == ["a", "b", "c", "d"]
    assert result.recordings[0].path == home / "deep" / "er" / "a.FLAC"
    assert result.findings == ()


def test_id_is_the_stem_unless_two_files_share_it(sounds):
    home = sounds("north/x.wav", "south/x.wav", "south/y.wav", "x.wav")
    assert ids(home) == ["north/x", "south/x", "x", "y"]


def test_roots_and_suffixes_join_the_id_where_paths_are_equal(sounds):
    home = sounds("a/x.wav", "b/x.wav", "b/x.flac", "b/c/x.wav")
    assert ids(home / "a", home / "b") == ["a/x", "b/x.flac", "b/x.wav", "c/x"]


def test_roots_of_one_name_give_different_ids(sounds):
    home = sounds("1/audio/x.wav", "2/audio/x.wav")
    assert ids(home / "1" / "audio", home / "2" / "audio") == [
        (home / n / "audio" / "x.wav").as_posix() for n in "12"
    ]


def test_file_that_is_reached_twice_counts_once(sounds):
    home = sounds("a/x.wav")
    for name in ("again", "and again"):  # without a memory two loops are 2**40 folders
        (home / "a" / name).symlink_to(home / "a", target_is_directory=True)
    assert ids(home, home / "a", home / "a" / "x.wav") == ["x"]


def test_linked_folder_is_followed(sounds):
    home = sounds("store/x.wav")
    (home / "data").mkdir()
    (home / "data" / "link").symlink_to(home / "store", target_is_directory=True)
    assert ids(home / "data") == ["x"]


def test_root_may_be_one_file(sounds):
    assert ids(sounds("a/x.wav") / "a" / "x.wav") == ["x"]


def test_unreadable_files_are_reported_and_the_others_found(sounds):
    home = sounds("x.wav")
    (home / "empty.wav").touch()
    (home / "letter.flac").write_bytes(b"dear sir or madam, " * 9)
    (home / "phone.M4A").write_bytes(b"whatever")
    result = find_recordings([home])
    assert [recording.id for recording in result.recordings] == ["x"]
    assert {Path(finding.file).name for finding in result.findings} == {
        *("empty.wav", "letter.flac", "phone.M4A")
    }
    assert {finding.code for finding in result.findings} == {"W_AUDIO_UNREADABLE"}
    assert all(finding.serious for finding in result.findings)


def test_root_without_recordings_is_refused(sounds, tmp_path):
    sounds("x.wav")
    with pytest.raises(UserError) as missing:
        find_recordings([tmp_path, tmp_path / "none"])
    assert missing.value.code == "E_NO_FILE"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as empty:
        find_recordings([tmp_path, tmp_path / "empty"])
    assert empty.value.code == "E_NO_AUDIO"
    assert empty.value.what.startswith(str(tmp_path / "empty"))
    (tmp_path / "empty" / "a.wav").touch()
    with pytest.raises(UserError) as unreadable:
        find_recordings([tmp_path / "empty"])
    assert unreadable.value.code == "E_NO_AUDIO"
    assert "0 bytes" in unreadable.value.what


def test_site_comes_from_the_name_else_from_folders_that_differ(sounds):
    home = sounds("POND/Data/a.wav", "HILL/b.wav", "HILL/LAKE_20200607_051500.wav")
    places = {r.id: (r.site, r.recorded_at) for r in find_recordings([home]).recordings}
    assert places == {
        "a": ("POND", None),
        "b": ("HILL", None),
        "LAKE_20200607_051500": ("LAKE", datetime(2020, 6, 7, 5, 15)),
    }


def test_only_folder_names_no_site(sounds):
    home = sounds("POND/a.wav", "POND/b.wav")
    assert [r.site for r in find_recordings([home]).recordings] == [None, None]


def test_table_of_sites_overrides_names(sounds):
    home = sounds("LAKE_20200607_051500.wav", "b.wav", "c.wav")
    table = home / "sites.csv"
    table.write_text(
        "Site,Recorded at,File\nPOND,2021-01-02 03:04:05,LAKE_20200607_051500.wav\n"
        "HILL,,b\n,2021-13-45,c.wav\nX,,gone.wav\nX,,lost.wav\n"
    )
    result = find_recordings([home], table)
    places = {r.id: (r.site, r.recorded_at) for r in result.recordings}
    assert places["LAKE_20200607_051500"] == ("POND", datetime(2021, 1, 2, 3, 4, 5))
    assert places["b"] == ("HILL", None)
    assert places["c"] == (None, None)
    assert [(f.code, f.row, f.serious) for f in result.findings] == [
        ("W_SITE_TABLE", 4, True),
        ("W_NO_AUDIO", 5, False),
    ]
    assert "'2021-13-45'" in result.findings[0].what
    assert "2 rows" in result.findings[1].what
    assert "'gone.wav'" in result.findings[1].what


def test_table_of_sites_without_its_columns_is_refused(sounds):
    home = sounds("b.wav")
    (home / "sites.csv").write_text("recording,habitat\nb,bog\n")
    with pytest.raises(UserError) as error:
        find_recordings([home], home / "sites.csv")
    assert error.value.code == "E_MISSING_COLUMN"
    assert "recording, habitat" in error.value.what
    assert "'recorded_at'" in error.value.remedy


def matcher_of(*paths):
    return RecordingMatcher(
        [Recording(path.rsplit(".", 1)[0], Path("/data") / path, 8000, 8000) for path in paths]
    )


def find_id(matcher, name, table=None):
    match = matcher.find(name, table)
    return match.id if isinstance(match, Recording) else match


@pytest.mark.parametrize(
    "name",
    ["north/x", "north/x.wav", "/mnt/old/north/x.wav", r"C:\old\North\X.WAV", "north/x.flac"],
)
def test_name_matches_the_recording_whose_folders_agree(name):
    assert find_id(matcher_of("north/x.wav", "south/x.wav", "y.wav"), name) == "north/x"


@pytest.mark.parametrize("name", ["y", "y.wav", "y.mp3", "Y.WAV", r"D:\anywhere\y.wav"])
def test_unique_name_needs_no_folder(name):
    assert find_id(matcher_of("north/x.wav", "far/y.wav"), name) == "far/y"


def test_name_with_dots_keeps_them(tmp_path):
    assert find_id(matcher_of("a.2020.wav"), "a.2020") == "a.2020"
    assert find_id(matcher_of("a.2020.wav"), "a") is None
    assert find_id(matcher_of("a.wav"), "") is None


def test_table_beside_a_recording_means_that_recording():
    matcher = matcher_of("north/x.wav", "south/x.wav")
    assert find_id(matcher, "x.wav", Path("/data/south/x.txt")) == "south/x"
    unclear = find_id(matcher, "x.wav", Path("/elsewhere/x.txt"))
    assert unclear == AmbiguousMatch("2 recordings are called 'x.wav' (north/x, south/x)")


def test_two_files_of_a_table_never_match_one_recording():
    matcher = matcher_of("north/x.wav", "y.wav")
    table = Path("/t.csv")
    matches = matcher.find_all(["north/x.wav", "south/x.wav", "x.wav"], table)
    assert matches["north/x.wav"].id == matches["x.wav"].id == "north/x"
    assert matches["south/x.wav"] is None
    matches = matcher.find_all(["a/y.wav", "b/y.wav"], table)
    assert all(isinstance(match, AmbiguousMatch) for match in matches.values())
    assert matcher.find_all(["a/y.wav"], table)["a/y.wav"].id == "y"


def test_short_path_names_have_as_few_folders_as_make_them_unique(tmp_path):
    names = ["seed1/quick", "seed2/quick", "seed1/best", "old/seed1/quick"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.mkdir(parents=True)
    home = tmp_path.name
    assert short_path_names(paths[:3]) == ["seed1-quick", "seed2-quick", "best"]
    assert short_path_names(paths) == [
        f"{home}-seed1-quick",
        "seed2-quick",
        "best",
        "old-seed1-quick",
    ]


def test_short_path_name_of_a_file_loses_its_suffix_and_of_a_folder_does_not(tmp_path):
    (tmp_path / "v1.2").mkdir()
    assert short_path_names([tmp_path / "theirs.csv", tmp_path / "v1.2"]) == ["theirs", "v1.2"]


def test_short_names_that_stay_equal_are_the_last_ones():
    assert short_names([["a", "b/a"], ["a", "b/a"], ["a", "c/a"]]) == ["b/a", "b/a", "c/a"]
    assert short_names([]) == []
    twice = short_path_names([Path("/x/run"), Path("/x/run")])
    assert twice == ["x-run", "x-run"]


@pytest.mark.parametrize(
    "name",
    [
        r"D:\field\siteB\20240501_050000.WAV",
        r"D:\field\siteB\Data\20240501_050000.WAV",
        "siteB/20240501_050000",
        "/mnt/siteB/2024-05-01/20240501_050000.flac",
    ],
)
def test_time_in_the_folder_of_another_site_is_not_given_to_the_only_file(name):
    match = matcher_of("field/siteA/20240501_050000.WAV").find(name)
    assert isinstance(match, AmbiguousMatch)
    assert "'siteA'" in match.reason


@pytest.mark.parametrize(
    "name",
    [
        "20240501_050000.WAV",
        r"E:\20240501_050000.WAV",
        r"E:\DATA\20240501_050000.WAV",
        r"D:\field\SITEA\20240501_050000.WAV",
        r"D:\siteA\2024-05-01\Data\20240501_050000.WAV",
    ],
)
def test_folder_that_names_no_other_site_is_no_evidence(name):
    assert find_id(matcher_of("siteA/20240501_050000.WAV"), name) == "siteA/20240501_050000"


def test_folder_further_up_tells_two_sites_apart():
    matcher = matcher_of("siteA/1/20240501_050000.WAV", "siteB/1/20240501_050000.WAV")
    name = r"D:\siteB\Data\20240501_050000.WAV"
    assert find_id(matcher, name) == "siteB/1/20240501_050000"


def test_table_beside_a_file_means_it_whatever_its_path_says():
    table = Path("/data/siteA/x.txt")
    match = find_id(matcher_of("siteA/20240501_050000.WAV"), "siteB/20240501_050000.WAV", table)
    assert match == "siteA/20240501_050000"


def test_folder_of_a_table_tells_two_sites_apart():
    matcher = matcher_of("siteA/20240501_050000.WAV", "siteB/20240501_050000.WAV")
    table = Path("/tables/siteB/20240501_050000.txt")
    assert find_id(matcher, "20240501_050000", table) == "siteB/20240501_050000"


def test_tables_of_two_sites_do_not_share_the_only_recording():
    matcher = matcher_of("siteA/x.wav")
    tables = [Path(f"/tables/{folder}/x.txt") for folder in ("siteA", "siteB")]
    matches = {table: matcher.find_all(["x"], table) for table in tables}
    drop_rivals(matches)
    assert [matches[table]["x"] is None for table in tables] == [False, True]
    observers = [Path(f"/tables/{folder}/x.txt") for folder in ("anna", "ben")]
    matches = {table: matcher.find_all(["x"], table) for table in observers}
    drop_rivals(matches)
    assert all(match["x"] is not None for match in matches.values())


@pytest.mark.parametrize("name", ["Größe", "GRÖSSE.WAV", "Gro\u0308ße.flac", "  größe "])
def test_accents_case_and_blanks_do_not_count(name):
    assert find_id(matcher_of("Größe.wav"), name) == "Größe"
    assert find_id(matcher_of("Gro\u0308ße.wav"), name) == "Gro\u0308ße"


def test_files_that_differ_in_case_are_told_apart_by_case():
    matcher = matcher_of("a.wav", "A.wav")
    assert [find_id(matcher, name) for name in ("a.wav", "A", "A.flac")] == ["a", "A", "A"]


def test_id_of_a_file_has_composed_accents(sounds):
    assert ids(sounds("Pen\u0303o\u0301n.wav")) == ["Peñón"]
    twins = ids(sounds("Peñón.wav"))  # a disk may have both
    assert len(set(twins)) == 2
