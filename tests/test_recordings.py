from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from antpitta.core.errors import UserError
from antpitta.core.types import Recording
from antpitta.files.matching import AmbiguousMatch, RecordingMatcher
from antpitta.files.recordings import find_recordings


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


def test_every_recording_is_found_and_what_is_hidden_or_no_sound_is_not(sounds):
    home = sounds("b.wav", "deep/er/a.FLAC", "c.ogg", "d.au")
    for name in ("._b.wav", ".Trash/d.wav", "notes.txt"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(b"not sound")
    found = find_recordings([home])
    assert [recording.id for recording in found.recordings] == ["a", "b", "c", "d"]
    assert found.recordings[0].path == home / "deep" / "er" / "a.FLAC"
    assert found.findings == ()


def test_an_id_is_the_stem_unless_two_have_it(sounds):
    home = sounds("north/x.wav", "south/x.wav", "south/y.wav", "x.wav")
    assert ids(home) == ["north/x", "south/x", "x", "y"]


def test_roots_and_suffixes_come_in_where_paths_do_not_tell_ids_apart(sounds):
    home = sounds("a/x.wav", "b/x.wav", "b/x.flac", "b/c/x.wav")
    assert ids(home / "a", home / "b") == ["a/x", "b/x.flac", "b/x.wav", "c/x"]


def test_roots_of_one_name_still_give_different_ids(sounds):
    home = sounds("1/audio/x.wav", "2/audio/x.wav")
    told = ids(home / "1" / "audio", home / "2" / "audio")
    assert told == [(home / n / "audio" / "x.wav").as_posix() for n in "12"]


def test_a_file_counts_once_however_it_is_reached(sounds):
    home = sounds("a/x.wav")
    for name in ("again", "and again"):  # without a memory two loops are 2**40 folders
        (home / "a" / name).symlink_to(home / "a", target_is_directory=True)
    assert ids(home, home / "a", home / "a" / "x.wav") == ["x"]


def test_a_linked_folder_is_followed(sounds):
    home = sounds("store/x.wav")
    (home / "data").mkdir()
    (home / "data" / "link").symlink_to(home / "store", target_is_directory=True)
    assert ids(home / "data") == ["x"]


def test_a_root_may_be_one_file(sounds):
    assert ids(sounds("a/x.wav") / "a" / "x.wav") == ["x"]


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(sounds):
    home = sounds("x.wav")
    (home / "empty.wav").touch()
    (home / "letter.flac").write_bytes(b"dear sir or madam, " * 9)
    (home / "phone.M4A").write_bytes(b"whatever")
    found = find_recordings([home])
    assert [recording.id for recording in found.recordings] == ["x"]
    told = {Path(finding.file).name: finding.what for finding in found.findings}
    assert told == {
        "empty.wav": "is empty (0 bytes)",
        "letter.flac": "is not FLAC, whatever its name says",
        "phone.M4A": "M4A cannot be read",
    }


def test_a_root_that_is_not_there_or_holds_nothing_is_the_users_mistake(sounds, tmp_path):
    sounds("x.wav")
    with pytest.raises(UserError, match="there is no such file or folder"):
        find_recordings([tmp_path, tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no recordings"):
        find_recordings([tmp_path, tmp_path / "empty"])
    (tmp_path / "empty" / "a.wav").touch()
    with pytest.raises(UserError, match="no recording can be read; the first: is empty"):
        find_recordings([tmp_path / "empty"])


def test_sites_come_from_names_else_from_folders_that_differ(sounds):
    home = sounds("POND/Data/a.wav", "HILL/b.wav", "HILL/LAKE_20200607_051500.wav")
    told = {r.id: (r.site, r.recorded_at) for r in find_recordings([home]).recordings}
    assert told == {
        "a": ("POND", None),
        "b": ("HILL", None),
        "LAKE_20200607_051500": ("LAKE", datetime(2020, 6, 7, 5, 15)),
    }


def test_the_only_folder_names_no_site(sounds):
    home = sounds("POND/a.wav", "POND/b.wav")
    assert [r.site for r in find_recordings([home]).recordings] == [None, None]


def test_a_table_of_sites_overrides_what_names_tell(sounds):
    home = sounds("LAKE_20200607_051500.wav", "b.wav", "c.wav")
    table = home / "sites.csv"
    table.write_text(
        "Site,Start,File\nPOND,2021-01-02 03:04:05,LAKE_20200607_051500.wav\n"
        "HILL,,b\n,2021-13-45,c.wav\nX,,gone.wav\nX,,lost.wav\n"
    )
    found = find_recordings([home], table)
    told = {r.id: (r.site, r.recorded_at) for r in found.recordings}
    assert told["LAKE_20200607_051500"] == ("POND", datetime(2021, 1, 2, 3, 4, 5))
    assert told["b"] == ("HILL", None)
    assert told["c"] == (None, None)
    assert [(f.row, f.what, f.serious) for f in found.findings] == [
        (4, "'2021-13-45' is no time", True),
        (5, "2 rows name recordings that are not here, the first 'gone.wav'", False),
    ]


def test_a_table_of_sites_needs_its_columns(sounds):
    home = sounds("b.wav")
    (home / "sites.csv").write_text("recording,habitat\nb,bog\n")
    with pytest.raises(UserError, match="one of 'site' and 'began'; it has recording, habitat"):
        find_recordings([home], home / "sites.csv")


def heard(*paths):
    return RecordingMatcher(
        [Recording(path.rsplit(".", 1)[0], Path("/data") / path, 8000, 8000) for path in paths]
    )


def met(matcher, name, table=None):
    found = matcher.find(name, table)
    return found.id if isinstance(found, Recording) else found


@pytest.mark.parametrize(
    "name",
    ["north/x", "north/x.wav", "/mnt/old/north/x.wav", r"C:\old\North\X.WAV", "north/x.flac"],
)
def test_a_name_finds_its_recording_by_the_folders_that_agree(name):
    assert met(heard("north/x.wav", "south/x.wav", "y.wav"), name) == "north/x"


@pytest.mark.parametrize("name", ["y", "y.wav", "y.mp3", "Y.WAV", r"D:\anywhere\y.wav"])
def test_a_name_that_only_one_recording_has_needs_no_folder(name):
    assert met(heard("north/x.wav", "far/y.wav"), name) == "far/y"


def test_a_name_with_dots_is_not_cut(tmp_path):
    assert met(heard("a.2020.wav"), "a.2020") == "a.2020"
    assert met(heard("a.2020.wav"), "a") is None
    assert met(heard("a.wav"), "") is None


def test_a_table_beside_the_sound_means_the_sound_beside_it():
    matcher = heard("north/x.wav", "south/x.wav")
    assert met(matcher, "x.wav", Path("/data/south/x.txt")) == "south/x"
    unclear = met(matcher, "x.wav", Path("/elsewhere/x.txt"))
    assert unclear == AmbiguousMatch("2 recordings are called 'x.wav' (north/x, south/x)")


def test_two_files_of_a_table_never_fall_upon_one_recording():
    matcher = heard("north/x.wav", "y.wav")
    table = Path("/t.csv")
    found = matcher.find_all(["north/x.wav", "south/x.wav", "x.wav"], table)
    assert found["north/x.wav"].id == found["x.wav"].id == "north/x"
    assert found["south/x.wav"] is None
    found = matcher.find_all(["a/y.wav", "b/y.wav"], table)
    assert all(isinstance(one, AmbiguousMatch) for one in found.values())
    assert matcher.find_all(["a/y.wav"], table)["a/y.wav"].id == "y"
