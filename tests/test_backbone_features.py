"""Features of a frozen backbone: in memory or in a file, of windows as long as their sound."""

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.features import MelConfig
from antpitta.core.stages import LossConfig, MaskConfig, Stage
from antpitta.core.types import Annotation
from antpitta.model.network import SedNet
from antpitta.train import step_store
from antpitta.train.backbone_features import FeatureCache
from antpitta.train.data import extract_features

STAGE = Stage(
    name="s",
    sample="known",
    masks=MaskConfig(probability=0.0),
    loss=LossConfig(on="boxes", reduction="balanced"),
)
RECIPE = Recipe(
    name="t",
    description="t",
    features=MelConfig(
        sample_rate=8000, n_fft=256, hop_length=80, n_mels=32, fmin=50.0, fmax=4000.0, segment=4.0
    ),
    windows=WindowConfig(frames=416, overlap=0, inference_overlap=0),
    backbone=BackboneConfig(name="test_efficientnet", pretrained=False, frozen=True, reduction=8),
    head=HeadConfig(frequency_pooling="none", background_subtraction=1.0, smoothing_frames=48),
    stages=(STAGE,),
)
DURATIONS = [4.0, 0.5, 4.0, 1.0]
BOXES = [Annotation(f"r{i}", 0.1, 0.4, "a", i % 2 == 0) for i in range(4)]
BOXES += [Annotation("r0", 1.0, 1.5, "b", True)]


@pytest.fixture(scope="module")
def training_data(make_training_data):
    return make_training_data(RECIPE, DURATIONS, BOXES, species=("a", "b"))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return SedNet(RECIPE.backbone, RECIPE.head, 2, bands=32)


def test_short_windows_have_as_many_steps_as_prediction_would_give_them(net, training_data):
    features = FeatureCache().get(net, STAGE, training_data)
    assert features.store.steps[0] == features.store.steps[2] == 416 // net.stride
    assert features.store.steps[1] < features.store.steps[3] < features.store.steps[0] / 2


def test_features_equal_those_of_the_backbone(net, training_data):
    features = FeatureCache().get(net, STAGE, training_data)
    window = np.array([0])
    with torch.inference_mode():
        expected = extract_features(
            net, training_data, training_data.windows.take(window), torch.device("cpu")
        )
    torch.testing.assert_close(features.store.gather(window), expected, atol=0.02, rtol=0.02)


def test_gathered_windows_of_two_lengths_end_with_zeros(net, training_data):
    store = FeatureCache().get(net, STAGE, training_data).store
    gathered = store.gather(np.array([1, 0]))
    assert gathered.shape[2] == store.steps[0]
    assert not gathered[0, :, store.steps[1] :].any()
    assert torch.equal(gathered[1], store.gather(np.array([0]))[0])


def test_features_in_a_file_equal_those_in_memory(net, training_data, monkeypatch, tmp_path):
    in_memory = FeatureCache().get(net, STAGE, training_data)
    monkeypatch.setattr(step_store, "MAX_MEMORY", 0)
    in_file = FeatureCache().get(net, STAGE, training_data, tmp_path)
    windows = np.arange(len(training_data.windows))
    assert torch.equal(in_file.store.gather(windows), in_memory.store.gather(windows))
    assert torch.equal(in_file.box_rows, in_memory.box_rows)
    assert not list(tmp_path.iterdir())  # the file has no name, so nothing can be left behind


def test_rows_of_windows_are_means_over_their_boxes(net, training_data):
    features = FeatureCache().get(net, STAGE, training_data)
    rows = features.rows_of(np.array([2, 0]))
    assert len(rows) == 3  # one box in r2, then two in r0
    by_frame = features.store.gather(np.array([2]))[0].repeat_interleave(net.stride, dim=1)
    torch.testing.assert_close(rows[0], by_frame[:, 10:40].mean(dim=1), atol=1e-4, rtol=1e-3)
