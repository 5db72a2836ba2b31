"""From sound to scores: training and prediction agree, whatever the length of the recording."""

from pathlib import Path

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage
from antpitta.core.types import Classes, Dataset, Recording
from antpitta.model.features import (
    append_background,
    build_feature_extractor,
    stitch_segments,
)
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import TorchBackend, frames_per_row, predict_sliding
from antpitta.predict.predictor import ModelPredictor, predict_segments
from antpitta.sound.mel import LogMel, mel_features
from antpitta.train.data import build_training_data

RATE = 8000
RECIPE = Recipe(
    name="tiny",
    description="tests",
    features=MelConfig(
        sample_rate=RATE, n_fft=256, hop_length=80, n_mels=32, fmin=50, fmax=4000, segment=2.0
    ),
    windows=WindowConfig(frames=64, overlap=16, inference_overlap=32),
    backbone=BackboneConfig(name="test_resnet", pretrained=False),
    head=HeadConfig(),
    stages=(Stage(name="one"),),
)
SPECIES = Classes(("a", "b", "c"))
DURATIONS = [2.0, 5.3, 0.004, 2.005, 0.7, 4.0]


def wave_of(recording):
    rng = np.random.default_rng(int(recording.id[1:]))
    return rng.standard_normal(recording.samples).astype(np.float32)


def read(recording, start, stop, rate):
    assert rate == recording.sample_rate == RATE
    return wave_of(recording)[round(start * RATE) : round(stop * RATE)]


def make_predictor(nets, windows=RECIPE.windows):
    backend = TorchBackend(nets, 201, windows)
    return ModelPredictor(build_feature_extractor(RECIPE), backend, SPECIES, "tiny")


def predict(model, recording, read):
    """Presence (classes,) and framewise scores of a whole recording."""
    bounds = RECIPE.feature_config.segments(recording.duration)
    [segments] = predict_segments([model], recording, bounds, read)
    return model.merge(recording.id, segments, bounds)


def read_truncated(recording, start, stop, rate):
    """Like a file whose header promises more than it holds: nothing after 1 s."""
    return read(recording, start, stop, rate)[: max(0, round((1.0 - start) * RATE))]


@pytest.fixture(scope="module")
def recordings():
    return tuple(
        Recording(f"r{i}", Path(f"r{i}.wav"), RATE, round(seconds * RATE))
        for i, seconds in enumerate(DURATIONS)
    )


@pytest.fixture(scope="module")
def nets():
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = SedNet(RECIPE.backbone, RECIPE.head, 3, bands=32).eval()
        with torch.no_grad():
            net.head.class_conv.weight *= 200
        networks.append(net)
    return networks


@pytest.fixture(scope="module")
def model(nets):
    return make_predictor(nets)


def test_features_of_a_recording_are_those_of_its_segments_end_to_end(recordings):
    extractor = build_feature_extractor(RECIPE)
    features = extractor.extract_all(recordings[1], read)
    wave = wave_of(recordings[1])
    mel = LogMel(RECIPE.features)
    expected = [mel_features(wave[i : i + 2 * RATE], mel) for i in range(0, len(wave), 2 * RATE)]
    assert [len(part) for part in expected] == [201, 201, 131]
    np.testing.assert_array_equal(features, np.concatenate(expected))


def test_truncated_sound_is_padded_with_silence(recordings):
    extractor = build_feature_extractor(RECIPE)
    features = extractor.extract_all(recordings[1], read_truncated)
    assert features.shape == (201 + 201 + 131, 32)
    assert features[:100].any()
    assert not features[110:].any()


def test_training_data_maps_segments_and_windows_to_recordings(recordings):
    extractor = build_feature_extractor(RECIPE)
    features = [extractor.extract_all(recording, read) for recording in recordings]
    dataset = Dataset(recordings, (), SPECIES)
    data = build_training_data(dataset, RECIPE, features, torch.device("cpu"))
    assert data.recording_index.tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 5]
    assert [grid.start for grid in data.grids] == [0, 0, 2, 4, 0, 0, 0, 0, 2]
    assert data.segments_of(np.array([1, 5])).tolist() == [1, 2, 3, 7, 8]
    for i in range(len(recordings)):
        rows = data.windows_of(np.array([i]))
        assert set(data.recording_index[data.windows.segment[rows]]) == {i}
    assert not data.labels.weight.any()
    with pytest.raises(ValueError, match="1409"):
        build_training_data(dataset, RECIPE, features[:-1], torch.device("cpu"))


def test_prediction_equals_inference_on_training_features(recordings, nets, model):
    extractor = build_feature_extractor(RECIPE)
    features = [extractor.extract_all(recording, read) for recording in recordings]
    data = build_training_data(
        Dataset(recordings, (), SPECIES), RECIPE, features, torch.device("cpu")
    )
    unit = frames_per_row(32, 64, 32)
    for i, recording in enumerate(recordings):
        segments = data.segments_of(np.array([i]))
        parts = [predict_sliding(net, data.features, segments, 64, 32, 8) for net in nets]
        means = [np.mean(pair, axis=0) for pair in zip(*parts, strict=True)]
        value, grid = stitch_segments(means, [data.grids[j] for j in segments], unit)
        presence, scores = predict(model, recording, read)
        assert scores.grid == grid
        np.testing.assert_allclose(scores.value, value, atol=1e-5)
        expected = np.mean([np.concatenate(part).max(axis=0) for part in parts], axis=0)
        np.testing.assert_allclose(presence, expected, atol=1e-5)
        assert scores.grid.end >= min(recording.duration, 2.0)


def test_presence_is_the_mean_over_folds_of_the_highest_score_of_each(recordings, nets, model):
    folds = [predict(make_predictor([net]), recordings[0], read) for net in nets]
    presence, scores = predict(model, recordings[0], read)
    np.testing.assert_allclose(presence, np.mean([p for p, _ in folds], axis=0), atol=1e-6)
    np.testing.assert_allclose(
        scores.value, np.mean([s.value for _, s in folds], axis=0), atol=1e-6
    )
    for fold_presence, fold_scores in folds:
        np.testing.assert_allclose(fold_presence, fold_scores.value.max(axis=0), atol=1e-6)


def test_truncated_recording_has_scores_on_the_grid_of_the_whole(recordings, model):
    _, scores = predict(model, recordings[1], read_truncated)
    assert scores.grid == predict(model, recordings[1], read)[1].grid
    assert np.isfinite(scores.value).all()


@pytest.fixture(scope="module")
def subtracting_net():
    torch.manual_seed(0)
    head = HeadConfig(background_subtraction=1.0)
    net = SedNet(RECIPE.backbone, head, 3, bands=32).eval()
    with torch.no_grad():
        net.head.class_conv.weight *= 200
    return net


def short_sound(kind, seconds):
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 0.01, round(seconds * RATE)).astype(np.float32)
    if kind == "silence":
        return 0 * noise
    time = np.arange(len(noise)) / RATE
    return noise + (kind == "call") * 0.3 * np.sin(2 * np.pi * 1500 * time).astype(np.float32)


@pytest.mark.parametrize("windows", [None, RECIPE.windows])
@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.3])
def test_short_recording_is_scored_by_its_sound(subtracting_net, windows, seconds):
    backend = TorchBackend([subtracting_net], 201, windows)
    extractor = build_feature_extractor(RECIPE)
    model = ModelPredictor(extractor, backend, SPECIES, "tiny", RECIPE.windows.frames)
    scores = {}
    for kind in ("silence", "noise", "call"):
        wave = short_sound(kind, seconds)
        recording = Recording(kind, Path(f"{kind}.wav"), RATE, len(wave))
        read_short = lambda r, start, stop, rate, wave=wave: wave  # noqa: E731
        scores[kind], _ = predict(model, recording, read_short)
    assert np.abs(scores["call"] - scores["silence"]).max() > 0.01
    assert np.abs(scores["call"] - scores["noise"]).max() > 0.01


def test_background_of_a_short_call_is_that_of_the_bands_around_it():
    rng = np.random.default_rng(0)
    pixels = rng.integers(40, 60, (12, 128), dtype=np.uint8)
    pixels[:, 60:64] = 250  # the call lasts all the time
    longer = append_background(pixels, 100)
    assert longer.shape == (100, 128)
    np.testing.assert_array_equal(longer[:12], pixels)
    assert 40 <= longer[12:].min() <= longer[12:].max() < 60
    assert not append_background(np.zeros((3, 128), np.uint8), 10).any()


@pytest.mark.parametrize("seconds", [0.8, 2.0])
def test_longer_recording_has_the_scores_of_the_network_alone(subtracting_net, seconds):
    backend = TorchBackend([subtracting_net], 201, None)
    extractor = build_feature_extractor(RECIPE)
    wave = short_sound("call", seconds)
    recording = Recording("a", Path("a.wav"), RATE, len(wave))
    read_long = lambda r, start, stop, rate: wave[round(start * rate) : round(stop * rate)]  # noqa: E731
    results = [
        predict(ModelPredictor(extractor, backend, SPECIES, "tiny", frames), recording, read_long)
        for frames in (0, RECIPE.windows.frames)
    ]
    np.testing.assert_array_equal(results[0][0], results[1][0])
