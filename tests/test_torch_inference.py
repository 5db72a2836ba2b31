"""Sliding windows in PyTorch, against a loop over single windows."""

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import frames_per_row, predict_sliding, windows_per_batch

LENGTHS = (251, 64, 30, 100, 1)
ALL = np.arange(len(LENGTHS))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = SedNet(BackboneConfig(name="test_resnet", pretrained=False), HeadConfig(), 3).eval()
    with torch.no_grad():
        net.head.class_conv.weight *= 300  # so that windows differ
    return net


def store_of(lengths, bands):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (sum(lengths), bands), dtype=np.uint8)
    return FeatureStore(torch.from_numpy(pixels), np.array(lengths))


@pytest.fixture(scope="module")
def store():
    return store_of(LENGTHS, 32)


def loop_over_windows(net, segment, frames, overlap):
    """Return each frame's highest probability over the windows that contain it."""
    highest = np.zeros((len(segment) + frames, 3))
    first = 0
    while True:
        window = np.zeros((frames, segment.shape[1]), dtype=np.uint8)
        part = segment[first : first + frames]
        window[: len(part)] = part
        with torch.inference_mode():
            steps = net(torch.from_numpy(window)[None]).framewise[0]
        probability = torch.sigmoid(steps).numpy().repeat(32, axis=0)[:frames]
        highest[first : first + frames] = np.maximum(highest[first : first + frames], probability)
        if first + frames >= len(segment):
            return highest[: len(segment)]
        first += frames - overlap


@pytest.mark.parametrize(("frames", "overlap"), [(64, 32), (64, 0), (64, 40), (96, 80)])
@pytest.mark.parametrize("batch", [1, 32])
def test_predict_sliding_equals_a_loop_over_single_windows(net, store, frames, overlap, batch):
    updates = []
    scores = predict_sliding(net, store, ALL, frames, overlap, batch, update=updates.append)
    row_frames = frames_per_row(32, frames, overlap)
    assert sum(updates) == len(LENGTHS)
    for length, offset, rows in zip(LENGTHS, store.offsets, scores, strict=True):
        segment = store.pixels[offset : offset + length].numpy()
        expected = loop_over_windows(net, segment, frames, overlap)
        assert rows.shape == (-(-length // row_frames), 3)
        np.testing.assert_allclose(rows.repeat(row_frames, axis=0)[:length], expected, atol=1e-4)
    assert np.ptp(scores[0]) > 0.05


def test_predict_sliding_returns_segments_in_the_given_order(net, store):
    scores = predict_sliding(net, store, ALL, 64, 32, 8)
    selected = predict_sliding(net, store, np.array([3, 0]), 64, 32, 8)
    np.testing.assert_allclose(selected[0], scores[3], atol=1e-5)
    np.testing.assert_allclose(selected[1], scores[0], atol=1e-5)
    assert predict_sliding(net, store, np.array([], dtype=np.int64), 64, 32, 8) == []


def test_predict_sliding_of_a_network_in_training_uses_and_keeps_its_statistics(net, store):
    expected = predict_sliding(net, store, np.array([0]), 64, 32, 8)[0]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    scores = predict_sliding(net, store, np.array([0]), 64, 32, 8)[0]
    np.testing.assert_array_equal(scores, expected)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_predict_sliding_in_half_precision_gives_float32_probabilities(net):
    store = store_of(LENGTHS, 128)
    exact = predict_sliding(net, store, ALL, 64, 32, 8)
    half = predict_sliding(
        *(net, store, ALL, 64, 32, 8), precision=lambda: torch.autocast("cpu", torch.bfloat16)
    )
    for reference, scores in zip(exact, half, strict=True):
        assert scores.dtype == np.float32
        np.testing.assert_allclose(reference, scores, atol=0.2)
    probabilities = np.concatenate(half)
    assert (np.concatenate(exact) != probabilities).any()
    logits = torch.from_numpy(np.log(probabilities / (1 - probabilities)))
    assert not torch.allclose(logits, logits.bfloat16().float(), rtol=1e-5)


def test_predict_sliding_fills_batches_with_whole_segments(net, monkeypatch):
    sizes, updates = [], []
    forward = type(net).forward

    def record_size(self, pixels, *args):
        sizes.append(len(pixels))
        return forward(self, pixels, *args)

    monkeypatch.setattr(type(net), "forward", record_size)
    store = store_of((64, 160, 64, 320), 128)  # at 64 frames, overlap 32: 1, 4, 1 and 9 windows
    scores = predict_sliding(net, store, np.arange(4), 64, 32, 5, update=updates.append)
    assert sizes == [5, 1, 9]
    assert updates == [2, 1, 1]
    assert len(scores) == 4


def test_frames_per_row_is_the_largest_that_all_steps_fall_on():
    assert frames_per_row(32, 512, 256) == 32
    assert frames_per_row(32, 512, 49) == 1


def test_windows_per_batch_is_larger_on_a_gpu():
    assert windows_per_batch(512) == 32
    assert windows_per_batch(512, "cuda") == 512
    assert windows_per_batch(512, "mps") == 32
    assert windows_per_batch(1 << 20) == 1
