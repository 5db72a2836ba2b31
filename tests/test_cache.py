"""The cache of features: keyed by the content of the audio, not by its name."""

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


class Extractor:
    """Computes features from a file's bytes, and keeps the ids of the recordings."""

    def __init__(self):
        self.computed = []

    def __call__(self, recording, notes):
        self.computed.append(recording.id)
        raw = np.frombuffer(recording.path.read_bytes(), dtype=np.uint8)
        return np.repeat(raw[:, None], 4, axis=1)


def fetch(recordings, extractor, home, digest="mel", **more):
    return cached_features(recordings, digest, extractor, folder=home, **more)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "cache"


def test_features_are_computed_once_and_mapped_from_disk(tmp_path, home):
    extractor, audio = Extractor(), recording(tmp_path / "a.wav", b"abc")
    (first,) = fetch([audio], extractor, home)
    (again,) = fetch([audio], extractor, home)
    assert extractor.computed == ["a"]
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(again[:, 0], list(b"abc"))


def test_features_come_in_the_order_of_the_recordings_with_progress(tmp_path, home):
    several = [recording(tmp_path / f"{i}.wav", bytes([i]) * 3) for i in range(20)]
    done = []
    for _ in range(2):
        report = lambda count, total, extra: done.append((count, total))  # noqa: E731
        features = fetch(several, Extractor(), home, progress=report, workers=4)
        assert [int(array[0, 0]) for array in features] == list(range(20))
    assert done == 2 * [(count, 20) for count in range(1, 21)]


def test_file_with_other_content_is_computed_anew(tmp_path, home):
    extractor, audio = Extractor(), recording(tmp_path / "a.wav", b"abc")
    fetch([audio], extractor, home)
    recording(audio.path, b"abd")
    (features,) = fetch([audio], extractor, home)
    assert extractor.computed == ["a", "a"]
    np.testing.assert_array_equal(features[:, 0], list(b"abd"))


def test_renamed_file_is_found_again(tmp_path, home):
    extractor, audio = Extractor(), recording(tmp_path / "a.wav", b"abc")
    fetch([audio], extractor, home)
    (tmp_path / "far").mkdir()
    moved = audio.path.rename(tmp_path / "far" / "b.wav")
    fetch([recording(moved)], extractor, home)
    assert extractor.computed == ["a"]


def test_other_settings_have_features_of_their_own(tmp_path, home):
    extractor, audio = Extractor(), recording(tmp_path / "a.wav", b"abc")
    fetch([audio], extractor, home, digest="one")
    fetch([audio], extractor, home, digest="two")
    fetch([audio], extractor, home, digest="one")
    assert extractor.computed == ["a", "a"]


def damaged(raw):
    header_end = raw.index(b"\n") + 1
    return {
        "empty": b"",
        "cut short": raw[:-1],
        "only its mark": raw[:6],
        "cut in the header": raw[:40],
        "header alone": raw[:header_end],
        "no array at all": b"hello",
        "a broken header": raw[:12] + b"(" * 20 + raw[32:],
        "code": b"\x80\x04\x95.",
    }


@pytest.mark.parametrize("how", list(damaged(b"\n")))
def test_damaged_cache_file_is_computed_anew(tmp_path, home, how):
    extractor, audio = Extractor(), recording(tmp_path / "a.wav", b"abc")
    fetch([audio], extractor, home)
    (file,) = home.rglob("*.npy")
    file.write_bytes(damaged(file.read_bytes())[how])
    (features,) = fetch([audio], extractor, home)
    assert extractor.computed == ["a", "a"]
    np.testing.assert_array_equal(features[:, 0], list(b"abc"))
    fetch([audio], extractor, home)
    assert extractor.computed == ["a", "a"]


@pytest.mark.parametrize("other", [np.zeros(3, np.uint8), np.zeros((3, 4)), np.array(5)])
def test_array_of_another_shape_or_type_is_computed_anew(tmp_path, home, other):
    extractor, audio = Extractor(), recording(tmp_path / "a.wav", b"abc")
    fetch([audio], extractor, home)
    (file,) = home.rglob("*.npy")
    np.save(file, other)
    (features,) = fetch([audio], extractor, home)
    np.testing.assert_array_equal(features[:, 0], list(b"abc"))


def test_what_is_wrong_with_the_sound_is_told_each_time(tmp_path, home):
    def compute(recording, notes):
        notes += ["is cut short after 0.5 s"] * 2 * (recording.id == "a")
        return np.full((3, 4), 7, dtype=np.uint8)

    both = [recording(tmp_path / f"{name}.wav", name.encode()) for name in "ab"]
    for _ in range(2):
        told = []
        for features in fetch(both, compute, home, notes=told):
            np.testing.assert_array_equal(features, np.full((3, 4), 7))
        assert set(told) == {"is cut short after 0.5 s"}
    assert told == ["is cut short after 0.5 s"]


def test_failed_computation_leaves_no_file(tmp_path, home):
    def fail(recording, notes):
        raise OSError("no sound")

    with pytest.raises(OSError, match="no sound"):
        fetch([recording(tmp_path / "a.wav", b"abc")], fail, home)
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_two_files_of_equal_content_can_be_computed_at_once(tmp_path, home):
    barrier = threading.Barrier(2, timeout=5)

    def compute(recording, notes):
        barrier.wait()
        return np.full((3, 4), 7, dtype=np.uint8)

    twins = [recording(tmp_path / f"{name}.wav", b"abc") for name in "ab"]
    first, second = fetch(twins, compute, home)
    np.testing.assert_array_equal(first, second)
    assert len([path for path in home.rglob("*") if path.is_file()]) == 1


def test_cache_folder_is_that_of_the_environment_or_the_users(monkeypatch):
    monkeypatch.setenv("ANTPITTA_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("ANTPITTA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/antpitta")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "antpitta"
