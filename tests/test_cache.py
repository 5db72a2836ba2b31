"""The cache of spectrograms: keyed by what is heard, whatever the file is called."""

import threading
from pathlib import Path

import numpy as np
import pytest

from antpitta.core.types import Recording
from antpitta.files.cache import cache_folder, cached_features


def recording(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return Recording(path.stem, path, 8000, 8000)


class Pen:
    """Draws a picture of a file's bytes, and remembers for whom."""

    def __init__(self):
        self.drawn = []

    def __call__(self, recording):
        self.drawn.append(recording.id)
        raw = np.frombuffer(recording.path.read_bytes(), dtype=np.uint8)
        return np.repeat(raw[:, None], 4, axis=1)


def fetch(recordings, pen, home, digest="front", **more):
    return cached_features(recordings, digest, pen, folder=home, **more)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "cache"


def test_a_picture_is_drawn_once_and_mapped_from_disk(tmp_path, home):
    pen, one = Pen(), recording(tmp_path / "a.wav", b"abc")
    (first,) = fetch([one], pen, home)
    (again,) = fetch([one], pen, home)
    assert pen.drawn == ["a"]
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(again[:, 0], list(b"abc"))


def test_pictures_come_in_the_recordings_order(tmp_path, home):
    several = [recording(tmp_path / f"{i}.wav", bytes([i]) * 3) for i in range(20)]
    ticks = []
    for _ in range(2):
        found = fetch(several, Pen(), home, tick=ticks.append, workers=4)
        assert [int(picture[0, 0]) for picture in found] == list(range(20))
    assert sum(ticks) == 40


def test_a_file_with_other_content_is_drawn_again(tmp_path, home):
    pen, one = Pen(), recording(tmp_path / "a.wav", b"abc")
    fetch([one], pen, home)
    recording(one.path, b"abd")
    (found,) = fetch([one], pen, home)
    assert pen.drawn == ["a", "a"]
    np.testing.assert_array_equal(found[:, 0], list(b"abd"))


def test_a_renamed_file_is_found_again(tmp_path, home):
    pen, one = Pen(), recording(tmp_path / "a.wav", b"abc")
    fetch([one], pen, home)
    (tmp_path / "far").mkdir()
    moved = one.path.rename(tmp_path / "far" / "b.wav")
    fetch([recording(moved)], pen, home)
    assert pen.drawn == ["a"]


def test_another_front_end_draws_its_own(tmp_path, home):
    pen, one = Pen(), recording(tmp_path / "a.wav", b"abc")
    fetch([one], pen, home, digest="one")
    fetch([one], pen, home, digest="two")
    fetch([one], pen, home, digest="one")
    assert pen.drawn == ["a", "a"]


def damaged(raw):
    header_end = raw.index(b"\n") + 1
    return {
        "empty": b"",
        "cut short": raw[:-1],
        "only its mark": raw[:6],
        "cut in the header": raw[:40],
        "header alone": raw[:header_end],
        "no picture at all": b"hello",
        "a broken header": raw[:12] + b"(" * 20 + raw[32:],
        "code": b"\x80\x04\x95.",
    }


@pytest.mark.parametrize("how", list(damaged(b"\n")))
def test_a_broken_cache_file_is_drawn_again(tmp_path, home, how):
    pen, one = Pen(), recording(tmp_path / "a.wav", b"abc")
    fetch([one], pen, home)
    (file,) = home.rglob("*.npy")
    file.write_bytes(damaged(file.read_bytes())[how])
    (found,) = fetch([one], pen, home)
    assert pen.drawn == ["a", "a"]
    np.testing.assert_array_equal(found[:, 0], list(b"abc"))
    fetch([one], pen, home)
    assert pen.drawn == ["a", "a"]


@pytest.mark.parametrize("other", [np.zeros(3, np.uint8), np.zeros((3, 4)), np.array(5)])
def test_what_is_no_picture_is_drawn_again(tmp_path, home, other):
    pen, one = Pen(), recording(tmp_path / "a.wav", b"abc")
    fetch([one], pen, home)
    (file,) = home.rglob("*.npy")
    np.save(file, other)
    (found,) = fetch([one], pen, home)
    np.testing.assert_array_equal(found[:, 0], list(b"abc"))


def test_a_drawing_that_fails_leaves_nothing_behind(tmp_path, home):
    def fail(recording):
        raise OSError("no sound")

    with pytest.raises(OSError, match="no sound"):
        fetch([recording(tmp_path / "a.wav", b"abc")], fail, home)
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_two_files_of_one_content_drawn_at_once_do_not_collide(tmp_path, home):
    barrier = threading.Barrier(2, timeout=5)

    def draw(recording):
        barrier.wait()
        return np.full((3, 4), 7, dtype=np.uint8)

    twins = [recording(tmp_path / f"{name}.wav", b"abc") for name in "ab"]
    one, two = fetch(twins, draw, home)
    np.testing.assert_array_equal(one, two)
    assert len([path for path in home.rglob("*") if path.is_file()]) == 1


def test_the_folder_is_the_users_choice_or_their_cache(monkeypatch):
    monkeypatch.setenv("ANTPITTA_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("ANTPITTA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/antpitta")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "antpitta"
