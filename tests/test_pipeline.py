"""From sound to scores: the same pictures in training and in prediction, whatever the length."""

from pathlib import Path

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.features import MelConfig
from antpitta.core.stages import Stage
from antpitta.core.types import Classes, Dataset, Recording
from antpitta.model.features import build_feature_extractor, stitch_segments
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import TorchBackend, predict_sliding, frames_per_row
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


def listening(nets, windows=RECIPE.windows):
    return ModelPredictor(build_feature_extractor(RECIPE), TorchBackend(nets, 201, windows))


def labels(listener, recording, read):
    cuts = RECIPE.feature_config.segments(recording.duration)
    return listener.gather(predict_segments([listener], recording, cuts, read)[0], cuts)


def breaks_off(recording, start, stop, rate):
    """The header promises more than there is: nothing is left after 1 s."""
    return read(recording, start, stop, rate)[: max(0, round((1.0 - start) * RATE))]


@pytest.fixture(scope="module")
def recordings():
    return tuple(
        Recording(f"r{i}", Path(f"r{i}.wav"), RATE, round(seconds * RATE))
        for i, seconds in enumerate(DURATIONS)
    )


@pytest.fixture(scope="module")
def nets():
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = SedNet(RECIPE.backbone, RECIPE.head, 3, bands=32).eval()
        with torch.no_grad():
            net.head.class_conv.weight *= 200
        made.append(net)
    return made


@pytest.fixture(scope="module")
def listener(nets):
    return listening(nets)


def test_a_recordings_picture_is_its_images_end_to_end(recordings):
    pen = build_feature_extractor(RECIPE)
    found = pen.extract_all(recordings[1], read)
    wave = wave_of(recordings[1])
    mel = LogMel(RECIPE.features)
    wanted = [mel_features(wave[i : i + 2 * RATE], mel) for i in range(0, len(wave), 2 * RATE)]
    assert [len(part) for part in wanted] == [201, 201, 131]
    np.testing.assert_array_equal(found, np.concatenate(wanted))


def test_sound_that_breaks_off_is_filled_up_with_silence(recordings):
    pen = build_feature_extractor(RECIPE)
    found = pen.extract_all(recordings[1], breaks_off)
    assert found.shape == (201 + 201 + 131, 32)
    assert found[:100].any()
    assert not found[110:].any()


def test_material_knows_each_image_and_its_windows(recordings):
    pen = build_feature_extractor(RECIPE)
    drawn = [pen.extract_all(one, read) for one in recordings]
    dataset = Dataset(recordings, (), SPECIES)
    training_data = build_training_data(dataset, RECIPE, drawn, torch.device("cpu"))
    assert training_data.recording_index.tolist() == [0, 1, 1, 1, 2, 3, 4, 5, 5]
    assert [grid.start for grid in training_data.grids] == [0, 0, 2, 4, 0, 0, 0, 0, 2]
    assert training_data.segments_of(np.array([1, 5])).tolist() == [1, 2, 3, 7, 8]
    for i in range(len(recordings)):
        rows = training_data.windows_of(np.array([i]))
        assert set(training_data.recording_index[training_data.windows.segment[rows]]) == {i}
    assert not training_data.labels.weight.any()
    with pytest.raises(ValueError, match="frames were drawn"):
        build_training_data(dataset, RECIPE, drawn[:-1], torch.device("cpu"))


def test_listening_equals_scanning_the_training_pictures(recordings, nets, listener):
    pen = build_feature_extractor(RECIPE)
    drawn = [pen.extract_all(one, read) for one in recordings]
    training_data = build_training_data(
        Dataset(recordings, (), SPECIES), RECIPE, drawn, torch.device("cpu")
    )
    unit = frames_per_row(32, 64, 32)
    for i, recording in enumerate(recordings):
        images = training_data.segments_of(np.array([i]))
        parts = [predict_sliding(net, training_data.features, images, 64, 32, 8) for net in nets]
        means = [np.mean(pair, axis=0) for pair in zip(*parts, strict=True)]
        value, grid = stitch_segments(means, [training_data.grids[j] for j in images], unit)
        found = labels(listener, recording, read)
        assert found.grid == grid
        np.testing.assert_allclose(found.value, value, atol=1e-5)
        presence = np.mean([np.concatenate(part).max(axis=0) for part in parts], axis=0)
        np.testing.assert_allclose(found.presence, presence, atol=1e-5)
        assert found.grid.end >= min(recording.duration, 2.0)


def test_presence_is_the_mean_over_folds_of_each_ones_best(recordings, nets, listener):
    one, two = (labels(listening([net]), recordings[0], read) for net in nets)
    both = labels(listener, recordings[0], read)
    np.testing.assert_allclose(both.presence, (one.presence + two.presence) / 2, atol=1e-6)
    np.testing.assert_allclose(both.value, (one.value + two.value) / 2, atol=1e-6)
    np.testing.assert_allclose(one.presence, one.value.max(axis=0), atol=1e-6)


def test_a_broken_recording_is_listened_to_as_far_as_it_goes(recordings, listener):
    found = labels(listener, recordings[1], breaks_off)
    assert found.grid == labels(listener, recordings[1], read).grid
    assert np.isfinite(found.value).all()
