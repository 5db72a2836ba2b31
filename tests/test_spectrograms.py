"""Spectrograms that another program computed, read instead of sound."""

import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import antpitta as ap
from antpitta import api
from antpitta.api import prediction
from antpitta.api.data import as_dataset
from antpitta.core.config import parse_recipe
from antpitta.core.errors import UserError
from antpitta.core.features import DUMP
from antpitta.files.audio import UnreadableAudio, probe, read
from antpitta.files.bundle import read_bundle
from antpitta.files.dataset import dataset_digest
from antpitta.files.recordings import ListedFile, find_recordings, list_files
from antpitta.files.spectrograms import probe_spectrogram, read_decibels, read_input
from antpitta.model.features import build_feature_extractor, check_input
from antpitta.predict.cluster import file_to_row, row_to_file
from antpitta.sound.mel import LogMel, dump_features, limit_range, to_uint8

SHARED = Path(__file__).parents[1].parent / "shared" / "golden" / "rfcx"
RATE = DUMP.sample_rate
SMALL = {
    "name": "small",
    "description": "tests",
    "folds": 2,
    "windows": {"frames": 64, "overlap": 16, "inference_overlap": 32},
    "backbone": {"name": "test_efficientnet", "pretrained": False},
    "stages": [{"name": "masked", "sample": "recordings", "batch_size": 4, "epochs": 1}],
}
TOML = """
name = "small"
description = "tests"
folds = 2
[windows]
frames = 64
overlap = 16
inference_overlap = 32
[backbone]
name = "test_efficientnet"
pretrained = false
[[stages]]
name = "masked"
sample = "recordings"
batch_size = 4
epochs = 1
"""


def recipe(**features):
    return parse_recipe(SMALL | {"features": features}, "small")


def own_decibels(wave):
    """(bands, frames): what a dump of this sound holds."""
    return np.ascontiguousarray(LogMel(DUMP)(wave).T)


def make_decibels(frames=126, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-80, 0, (DUMP.n_mels, frames)).astype(np.float32)


def make_wave(seconds=2.0, seed=0):
    rng = np.random.default_rng(seed)
    wave = rng.normal(0, 0.05, round(seconds * RATE)).astype(np.float32)
    time = np.arange(len(wave)) / RATE
    return wave + np.float32(0.2) * np.sin(2 * np.pi * 3000 * time).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sound, its spectrograms, and tables of boxes, of eight recordings of 2 s."""
    home = tmp_path_factory.mktemp("spectrograms")
    for name in ("sound", "dumps", "sound_test", "dumps_test"):
        (home / name).mkdir()
    rows = {"present": [], "absent": []}
    for i in range(10):
        kind = "_test" if i >= 8 else ""
        wave = make_wave(seed=i)
        sf.write(home / f"sound{kind}" / f"r{i}.wav", wave, RATE, subtype="FLOAT")
        np.save(home / f"dumps{kind}" / f"r{i}.npy", own_decibels(wave))
        for species in "ab":
            verdict = "present" if (i % 2 == 0) == (species == "a") else "absent"
            rows[verdict].append(f"r{i},{species},1,0.5,1000,1.0,5000")
    for verdict, lines in rows.items():
        header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max"
        train = [line for line in lines if line[1] < "8"]
        (home / f"{verdict}.csv").write_text("\n".join([header, *train, ""]))
    (home / "small.toml").write_text(TOML)
    return home


@pytest.fixture(scope="module")
def dumps(data):
    """The data set of the spectrograms alone."""
    return ap.open_data(
        spectrograms=data / "dumps", present=data / "present.csv", absent=data / "absent.csv"
    )


@pytest.fixture(scope="module")
def trained(data, dumps):
    """A run trained on spectrograms alone."""
    return ap.train(dumps, data / "small.toml", data / "run", export=False)


# ---- features


def test_features_of_a_dump_equal_those_of_its_sound(data):
    extractor = build_feature_extractor(recipe())
    sound = probe(data / "sound" / "r0.wav", "r0")
    dump = probe_spectrogram(data / "dumps" / "r0.npy", "r0")
    assert dump.duration == sound.duration == 2.0
    expected = extractor.extract_all(sound, read)
    features = extractor.extract_all(dump, read_input)
    assert features.dtype == np.uint8
    assert features.flags.c_contiguous
    assert features.shape == (126, 128)
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("changes", [{"hop_length": 1024}, {"hop_length": 2048}, {"top_db": 40.0}])
def test_features_with_other_settings_that_fit_equal_those_of_the_sound(data, changes):
    extractor = build_feature_extractor(recipe(**changes))
    sound = extractor.extract_all(probe(data / "sound" / "r1.wav", "r1"), read)
    dump = probe_spectrogram(data / "dumps" / "r1.npy", "r1")
    np.testing.assert_array_equal(extractor.extract_all(dump, read_input), sound)


def test_segments_of_a_long_dump_are_scaled_one_by_one(tmp_path):
    decibels = make_decibels(frames=2 * 125 + 1)
    decibels[:, 126:] *= 0.5
    np.save(tmp_path / "x.npy", decibels)
    recording = probe_spectrogram(tmp_path / "x.npy", "x")
    extractor = build_feature_extractor(recipe(segment=2.0))
    features = extractor.extract_all(recording, read_input)
    parts = [decibels[:, :126].T, decibels[:, 125:].T]
    expected = [to_uint8(limit_range(part.copy(), 80.0)) for part in parts]
    np.testing.assert_array_equal(features, np.concatenate(expected))


def test_range_is_cut_by_top_db_of_the_recipe():
    decibels = np.array([[0.0, -10.0, -50.0, -70.0]], dtype=np.float32).T
    pixels = dump_features(decibels, recipe(top_db=50.0).features)
    assert pixels.ravel().tolist() == [255, 204, 0, 0]
    assert decibels[3, 0] == -70  # the file's own values stay


@pytest.mark.parametrize("recording", ["003bec244", "006ab765f"])
def test_dumped_columns_become_the_greys_of_the_original(tmp_path, recording):
    path = SHARED / "13_front_end.npz"
    if not path.is_file():
        pytest.skip("needs 13_front_end.npz, which rests on the competition's data, in ../shared")
    golden = np.load(path)
    columns = golden[f"{recording}_db_columns"]
    least, greatest = golden[f"{recording}_db_stats"][:2]
    ends = columns[:, :1].copy()
    ends[:2, 0] = least, greatest  # greys are scaled by those of the whole picture
    np.save(tmp_path / f"{recording}.npy", np.hstack([columns, ends]))
    dump = probe_spectrogram(tmp_path / f"{recording}.npy", recording)
    rfcx = build_feature_extractor(ap_recipe("rfcx"))
    greys = rfcx.extract_all(dump, read_input)[:-1].T
    np.testing.assert_array_equal(greys, golden[f"{recording}_uint8"][:, golden["column"]])


def ap_recipe(name):
    from antpitta.files.recipes import read_recipe

    return read_recipe(name)


# ---- settings that do not fit


@pytest.mark.parametrize("name", ["rfcx", "quick"])
def test_recipes_fit_the_dumps(name):
    check_input(ap_recipe(name), spectrograms=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_mels": 64}, ["n_mels", "64", "128"]),
        ({"hop_length": 320}, ["hop_length", "320", "512"]),
        ({"hop_length": 256}, ["hop_length", "256", "512"]),
        ({"sample_rate": 48_000}, ["sample_rate", "48000", "32000"]),
        ({"n_fft": 1024}, ["n_fft", "1024", "2048"]),
        ({"fmin": 50.0, "fmax": 15_000.0}, ["fmin", "50", "20", "fmax", "15000", "16000"]),
        ({"top_db": 100.0}, ["top_db", "100", "80"]),
        ({"segment": 2.01}, ["segment", "2.01"]),
        ({"hop_length": 1024, "segment": 0.4}, ["segment", "0.4", "12.50"]),
    ],
)
def test_recipe_that_does_not_fit_is_refused_with_both_values(changes, words):
    check_input(recipe(**changes), spectrograms=False)
    with pytest.raises(UserError) as error:
        check_input(recipe(**changes), spectrograms=True)
    assert error.value.code == "E_SPECTROGRAM_SETTINGS"
    assert all(word in error.value.what for word in ["small", *words])


def test_training_with_settings_that_do_not_fit_writes_nothing(data, dumps, tmp_path):
    out, changes = tmp_path / "run", ["features.n_mels=64"]
    with pytest.raises(UserError) as error:
        ap.train(dumps, data / "small.toml", out, changes=changes)
    assert error.value.code == "E_SPECTROGRAM_SETTINGS"
    assert not out.exists()


def test_embedding_recipe_is_refused():
    with pytest.raises(UserError) as error:
        check_input(ap_recipe("embedding"), spectrograms=True)
    assert error.value.code == "E_SPECTROGRAM_SETTINGS"


# ---- one file


def write_npz(path, **arrays):
    np.savez(path, **arrays)


def write_pickle(path):
    with path.open("wb") as file:
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def write_pickled_npz(path):
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def write_truncated(path):
    np.save(path, make_decibels())
    path.write_bytes(path.read_bytes()[:-1000])


def write_padded(path):
    np.save(path, make_decibels())
    path.write_bytes(path.read_bytes() + b"12345")


def write_truncated_npz(path):
    np.savez_compressed(path, x=make_decibels())
    path.write_bytes(path.read_bytes()[:-1000])


def write_lying_npz(path):
    """Its header promises more than it holds."""
    content = io.BytesIO()
    np.save(content, make_decibels())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content.getvalue()[:-400])


def write_huge(path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (128, 99999999999), }"
    header = header.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def write_records(path):
    np.save(path, np.zeros((128, 9), dtype=[("a", "f4")]))


BAD = {
    "transposed.npy": lambda path: np.save(path, make_decibels().T),
    "bands.npy": lambda path: np.save(path, make_decibels()[:64]),
    "vector.npy": lambda path: np.save(path, np.zeros(128, dtype=np.float32)),
    "scalar.npy": lambda path: np.save(path, np.float32(1)),
    "cube.npy": lambda path: np.save(path, np.zeros((1, 128, 9), dtype=np.float32)),
    "no_frames.npy": lambda path: np.save(path, make_decibels()[:, :0]),
    "one_frame.npy": lambda path: np.save(path, make_decibels()[:, :1]),
    "uint8.npy": lambda path: np.save(path, np.zeros((128, 9), dtype=np.uint8)),
    "int.npy": lambda path: np.save(path, np.zeros((128, 9), dtype=np.int32)),
    "bool.npy": lambda path: np.save(path, np.zeros((128, 9), dtype=bool)),
    "complex.npy": lambda path: np.save(path, np.zeros((128, 9), dtype=np.complex64)),
    "longdouble.npy": lambda path: np.save(path, np.zeros((128, 9), dtype=np.longdouble)),
    "text.npy": lambda path: np.save(path, np.full((128, 9), "x")),
    "records.npy": write_records,
    "pickle.npy": write_pickle,
    "pickle.npz": write_pickled_npz,
    "truncated.npy": write_truncated,
    "truncated.npz": write_truncated_npz,
    "lying.npz": write_lying_npz,
    "longer.npy": write_padded,
    "huge.npy": write_huge,
    "two.npz": lambda path: write_npz(path, a=make_decibels(), b=make_decibels()),
    "none.npz": write_npz,
    "empty.npy": lambda path: path.write_bytes(b""),
    "empty.npz": lambda path: path.write_bytes(b""),
    "words.npy": lambda path: path.write_text("not an array"),
    "words.npz": lambda path: path.write_text("not an archive"),
    "pickle_protocol.npy": lambda path: path.write_bytes(b"\x80\x04]\x94."),
    "folder.npy": lambda path: path.mkdir(),
    "pipe.npy": os.mkfifo,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_one_serious_finding_with_its_name(tmp_path, name):
    np.save(tmp_path / "good.npy", make_decibels())
    BAD[name](path := tmp_path / name)
    if path.is_dir():
        assert find_recordings((), spectrograms=[tmp_path]).findings == ()
        return
    found = find_recordings((), spectrograms=[tmp_path])
    assert [recording.id for recording in found.recordings] == ["good"]
    (finding,) = found.findings
    assert finding.code == "W_SPECTROGRAM_UNREADABLE"
    assert finding.serious
    assert finding.file == str(path)
    assert str(path) not in finding.what
    assert "\n" not in str(finding)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_value_that_is_no_level_makes_a_file_unreadable(tmp_path, value, suffix):
    decibels = make_decibels()
    decibels[7, 50] = value
    path = tmp_path / f"x{suffix}"
    np.save(path, decibels) if suffix == ".npy" else np.savez(path, decibels)
    recording = probe_spectrogram(path, "x")
    read_decibels(recording, 0.0, 49 * 0.016)
    with pytest.raises(UnreadableAudio, match="band 7") as error:
        read_decibels(recording, 0.0, 2.0)
    assert "0.800 s" in str(error.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, values: np.save(path / "x.npy", values),
        lambda path, values: np.save(path / "x.npy", np.asfortranarray(values)),
        lambda path, values: np.save(path / "x.npy", values.astype(np.float64)),
        lambda path, values: np.save(path / "x.npy", values.astype(">f4")),
        lambda path, values: (
            np.save(path / "x.NPY.part", values) or (path / "x.NPY.part.npy").rename(path / "x.NPY")
        ),
        lambda path, values: np.savez(path / "x.npz", values),
        lambda path, values: np.savez_compressed(path / "x.npz", any_name=values),
        lambda path, values: np.savez(path / "x.npz", values.astype(np.float64)),
    ],
)
def test_ways_to_store_one_array_give_the_same_decibels(tmp_path, write):
    values = make_decibels()
    write(tmp_path, values)
    (recording,) = find_recordings((), spectrograms=[tmp_path]).recordings
    assert (recording.id, recording.duration) == ("x", 2.0)
    decibels = read_decibels(recording, 0.0, 2.0)
    np.testing.assert_array_equal(decibels, values.T)
    assert decibels.dtype == np.float32
    assert decibels.flags.c_contiguous


def test_half_precision_is_read_and_reported(tmp_path, data):
    np.save(tmp_path / "r0.npy", make_decibels().astype(np.float16))
    opened = ap.open_data(spectrograms=tmp_path, present=data / "present.csv")
    findings = [f for f in ap.check(opened).findings if f.code == "W_SPECTROGRAM_VALUES"]
    assert ["float16" in f.what and not f.serious for f in findings] == [True]


# ---- folders


def test_recording_with_two_files_has_none(tmp_path):
    np.save(tmp_path / "x.npy", make_decibels())
    np.savez(tmp_path / "x.npz", make_decibels())
    np.save(tmp_path / "y.npy", make_decibels())
    found = find_recordings((), spectrograms=[tmp_path])
    assert [recording.id for recording in found.recordings] == ["y"]
    assert [(f.code, f.serious) for f in found.findings] == [("W_SPECTROGRAM_TWICE", True)]


def test_other_files_are_ignored(tmp_path):
    np.save(tmp_path / "x.npy", make_decibels())
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "._x.npy").write_bytes(b"x")
    (tmp_path / "x.wav").write_bytes(b"x")
    found = find_recordings((), spectrograms=[tmp_path])
    assert [r.id for r in found.recordings] == ["x"]
    assert not found.findings


@pytest.mark.parametrize("content", [None, "x.txt"])
def test_folder_without_spectrograms_is_refused(tmp_path, content):
    folder = tmp_path / "dumps"
    if content:
        folder.mkdir()
        (folder / content).write_text("x")
    with pytest.raises(UserError) as error:
        find_recordings((), spectrograms=[folder])
    assert error.value.code == ("E_NO_AUDIO" if content else "E_NO_FILE")
    assert str(folder) in error.value.what


def test_sound_gives_names_and_missing_spectrograms_are_named(tmp_path, data):
    sound, dumps = tmp_path / "sound", tmp_path / "dumps"
    sound.mkdir()
    dumps.mkdir()
    for name in ("SITE1_20240501_050000", "Abc", "lost1", "lost2"):
        sf.write(sound / f"{name}.wav", make_wave(), RATE)
    for name in ("SITE1_20240501_050000", "abc", "alone"):
        np.save(dumps / f"{name}.npy", make_decibels())
    found = find_recordings([sound], spectrograms=[dumps])
    by_id = {recording.id: recording for recording in found.recordings}
    assert set(by_id) == {"SITE1_20240501_050000", "abc", "alone"}
    assert by_id["abc"].path == sound / "Abc.wav"
    assert by_id["abc"].source == dumps / "abc.npy"
    assert by_id["alone"].path == by_id["alone"].source == dumps / "alone.npy"
    assert by_id["SITE1_20240501_050000"].recorded_at.year == 2024
    (finding,) = found.findings
    assert finding.code == "W_NO_SPECTROGRAM"
    assert finding.serious
    assert "lost1, lost2" in finding.what
    assert finding.file == str(dumps)


def test_ids_that_differ_in_case_only_are_two_recordings(tmp_path):
    sound, dumps = tmp_path / "sound", tmp_path / "dumps"
    sound.mkdir()
    dumps.mkdir()
    sf.write(sound / "abc.wav", make_wave(), RATE)
    for name in ("abc", "ABC"):
        np.save(dumps / f"{name}.npy", make_decibels())
    if len(list(dumps.iterdir())) < 2:
        pytest.skip("this disk knows no case")
    files, findings = list_files([sound], None, [dumps])
    assert not findings
    assert {file.id: file.path.name for file in files} == {"abc": "abc.wav", "ABC": "ABC.npy"}


def test_rows_without_a_spectrogram_are_a_serious_finding(tmp_path, data):
    np.save(tmp_path / "r0.npy", make_decibels())
    opened = ap.open_data(spectrograms=tmp_path, present=data / "present.csv")
    (finding,) = [f for f in opened.findings if f.code == "W_NO_SPECTROGRAM"]
    assert finding.serious
    assert finding.row == 3
    assert "r1, r2" in finding.what


def test_box_beyond_the_last_frame_is_reported(tmp_path, data):
    np.save(tmp_path / "r0.npy", make_decibels(frames=26))  # 0.4 s
    np.save(tmp_path / "r1.npy", make_decibels(frames=59))  # 0.93 s
    opened = ap.open_data(spectrograms=tmp_path, present=data / "present.csv")
    codes = [f.code for f in ap.check(opened).findings if "ends at 0.40 s" in f.what]
    assert codes == ["W_BOX_BEYOND_END"]
    assert [box.recording for box in opened.dataset.annotations] == ["r1"]


@pytest.mark.parametrize("key", ["audio", "spectrograms"])
def test_data_set_is_written_and_read_with_its_folder(tmp_path, data, key):
    folder = data / ("sound" if key == "audio" else "dumps")
    path = ap.init(tmp_path, present=data / "present.csv", **{key: folder})
    assert key in path.read_text()
    opened = ap.open_data(path)
    assert len(opened.dataset.recordings) == 8
    assert (opened.dataset.recordings[0].spectrogram is None) == (key == "audio")


def test_spectrograms_may_be_given_beside_data(tmp_path, data):
    ap.init(tmp_path, audio=data / "sound", present=data / "present.csv")
    opened = ap.open_data(tmp_path, spectrograms=data / "dumps")
    recording = opened.dataset.recordings[0]
    assert recording.path == data / "sound" / "r0.wav"
    assert recording.spectrogram == data / "dumps" / "r0.npy"


def test_channel_and_url_are_refused_beside_spectrograms(data):
    with pytest.raises(UserError) as error:
        find_recordings((), None, 1, [data / "dumps"])
    assert error.value.code == "E_OPTION"
    with pytest.raises(UserError) as error:
        api.predict_to("no model", ["s3://bucket/x"], "out", spectrograms="s3://bucket/y")
    assert error.value.code in ("E_OPTION", "E_NO_MODEL")


# ---- check


def test_check_of_good_spectrograms_finds_nothing_of_them(dumps):
    codes = {finding.code for finding in ap.check(dumps).findings}
    assert not {code for code in codes if "SPECTROGRAM" in code or "AUDIO" in code}


@pytest.mark.parametrize(
    ("change", "code", "serious"),
    [
        (lambda values: np.full_like(values, -80), "W_SPECTROGRAM_VALUES", True),
        (lambda values: 10 ** (values / 10), "W_SPECTROGRAM_VALUES", False),
        (lambda values: np.where(values < -79, np.nan, values), "W_SPECTROGRAM_UNREADABLE", True),
    ],
)
def test_check_reads_the_values(tmp_path, data, change, code, serious):
    np.save(tmp_path / "r0.npy", change(make_decibels()).astype(np.float32))
    opened = ap.open_data(spectrograms=tmp_path, present=data / "present.csv")
    found = [f for f in ap.check(opened).findings if "SPECTROGRAM" in f.code and f.row is None]
    assert [(f.code, f.serious) for f in found] == [(code, serious)]
    unread = ap.check(opened, sound=False).findings
    assert code not in [f.code for f in unread]


def test_check_compares_lengths_with_the_sound(tmp_path, data):
    np.save(tmp_path / "r0.npy", make_decibels(frames=201))  # a hop length of 320
    opened = ap.open_data(audio=data / "sound", spectrograms=tmp_path, present=data / "present.csv")
    (finding,) = [f for f in ap.check(opened).findings if f.code == "W_SPECTROGRAM_LENGTH"]
    assert finding.serious
    assert "3.20 s" in finding.what
    assert "2.00 s" in finding.what


# ---- training


def test_digest_of_the_data_knows_its_input(tmp_path, data, dumps):
    sound = ap.open_data(
        audio=data / "sound", present=data / "present.csv", absent=data / "absent.csv"
    )
    assert dataset_digest(sound.dataset) != dataset_digest(dumps.dataset)
    recording = dumps.dataset.recordings[0]
    as_sound = replace(recording, spectrogram=None)
    assert recording.reading_key != as_sound.reading_key == ""


def test_run_on_spectrograms_says_so_everywhere(trained):
    run = trained
    assert json.loads((run.path / "config.json").read_text())["input"] == "spectrograms"
    assert read_bundle(run.model).provenance["input"] == "spectrograms"
    page = (run.path / "report.html").read_text()
    assert "spectrograms" in page


def test_run_is_not_resumed_on_the_sound(data, trained):
    run = trained
    sound = ap.open_data(
        audio=data / "sound", present=data / "present.csv", absent=data / "absent.csv"
    )
    with pytest.raises(UserError) as error:
        ap.train(sound, data / "small.toml", run.path, resume=True, export=False)
    assert error.value.code == "E_RUN_DIFFERS"


def test_training_on_a_value_that_is_no_number_ends_with_its_file(tmp_path, data):
    for i in range(4):
        decibels = make_decibels(seed=i)
        decibels[0, 0] = np.nan if i == 2 else 0
        np.save(tmp_path / f"r{i}.npy", decibels)
    opened = as_dataset(ap.open_data(spectrograms=tmp_path, present=data / "present.csv"))
    with pytest.raises(UserError) as error:
        ap.train(opened, data / "small.toml", tmp_path / "run", export=False)
    assert error.value.code == "E_SPECTROGRAM_UNREADABLE"
    assert str(tmp_path / "r2.npy") in error.value.what


# ---- prediction


def test_scores_of_spectrograms_equal_those_of_the_sound(data, trained, tmp_path):
    model = trained.model
    plain = api.predict_to(model, [data / "sound_test"], tmp_path / "sound")
    alone = api.predict_to(model, [], tmp_path / "dumps", spectrograms=data / "dumps_test")
    beside = api.predict_to(
        model, data / "sound_test", tmp_path / "both", spectrograms=data / "dumps_test"
    )
    assert plain.presence.equals(alone.presence)
    assert plain.presence.equals(beside.presence)
    assert list(alone.presence["recording_id"]) == ["r8", "r9"]
    assert set(beside.events["file"]) <= {str(data / "sound_test" / f"r{i}.wav") for i in (8, 9)}
    assert json.loads((tmp_path / "dumps" / "run.json").read_text())["input"] == "spectrograms"
    about_input = [["trained on" in note for note in made.notes] for made in (plain, alone, beside)]
    assert [sum(notes) for notes in about_input] == [1, 0, 0]
    assert "trained on spectrograms" in plain.notes[-1]


def test_inputs_do_not_mix_in_one_journal(data, trained, tmp_path):
    model, out = trained.model, tmp_path / "out"
    api.predict_to(model, [data / "sound_test"], out)
    with pytest.raises(UserError) as error:
        api.predict_to(model, [], out, spectrograms=data / "dumps_test", resume=True)
    assert error.value.code == "E_RESUME_MISMATCH"


def test_changed_spectrogram_is_computed_again(data, trained, tmp_path, opened):
    model, out, dumps = trained.model, tmp_path / "out", tmp_path / "dumps"
    dumps.mkdir()
    for name in ("r8", "r9"):
        (dumps / f"{name}.npy").write_bytes((data / "dumps_test" / f"{name}.npy").read_bytes())
    arguments = (model, [data / "sound_test"], out)
    api.predict_to(*arguments, spectrograms=dumps)
    np.save(dumps / "r9.npy", make_decibels())
    opened.clear()
    api.predict_to(*arguments, spectrograms=dumps, resume=True)
    assert opened == ["r9"]


def test_bad_and_missing_spectrograms_are_quarantined_by_name(data, trained, tmp_path):
    dumps = tmp_path / "dumps"
    dumps.mkdir()
    decibels = make_decibels()
    decibels[3, 3] = np.nan
    np.save(dumps / "r8.npy", decibels)
    np.save(dumps / "wide.npy", make_decibels().T)
    np.save(dumps / "good.npy", make_decibels())
    result = api.predict_to(
        trained.model, [data / "sound_test"], tmp_path / "out", spectrograms=dumps
    )
    assert list(result.presence["recording_id"]) == ["good"]
    reasons = dict(result.quarantine.to_numpy().tolist())
    assert {Path(file).name for file in reasons} == {"r8.wav", "r9.wav", "wide.npy"}
    assert "no spectrogram" in reasons[str(data / "sound_test" / "r9.wav")]
    assert "band 3" in reasons[str(data / "sound_test" / "r8.wav")]
    assert "(126, 128)" in reasons[str(dumps / "wide.npy")]


def test_tables_for_sound_are_refused_without_sound(data, trained, tmp_path):
    dumps, out = data / "dumps_test", tmp_path / "out"
    with pytest.raises(UserError) as error:
        api.predict_to(trained.model, [], out, spectrograms=dumps, formats=("csv", "raven"))
    assert error.value.code == "E_OPTION"
    assert "r8" in error.value.what
    sound = data / "sound_test"
    api.predict_to(trained.model, sound, out, spectrograms=dumps, formats=("csv", "raven"))


def test_model_of_other_features_refuses_spectrograms(trained, data, tmp_path, monkeypatch):
    bundle = read_bundle(trained.model)
    features = bundle.recipe["features"] | {"hop_length": 320}
    other = replace(bundle, recipe=bundle.recipe | {"features": features})
    monkeypatch.setattr(prediction, "read_bundle", lambda path: other)
    with pytest.raises(UserError) as error:
        api.predict_to(other.path, [], tmp_path / "out", spectrograms=data / "dumps_test")
    assert error.value.code == "E_SPECTROGRAM_SETTINGS"
    assert not (tmp_path / "out").exists()


def test_scores_in_memory_are_those_of_the_spectrograms(data, trained):
    table = ap.predict(trained.model, spectrograms=data / "dumps_test")
    assert set(table.index.get_level_values("file")) == {
        str(data / "dumps_test" / f"r{i}.npy") for i in (8, 9)
    }


def test_row_for_the_cluster_keeps_the_spectrogram(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, make_decibels())
    for file in (
        ListedFile("x", path, spectrogram=path),
        ListedFile("x", tmp_path / "x.wav", "here", spectrogram=path),
        ListedFile("x", tmp_path / "x.wav"),
    ):
        assert row_to_file(file_to_row(0, file, (1, 2))) == (file, (1, 2))
