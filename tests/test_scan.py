"""Scanning, against a loop over windows one by one; and the join of a recording's images."""

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig
from antpitta.core.features import MelConfig
from antpitta.core.timegrid import TimeGrid
from antpitta.model.features import score_grid, stitch_segments
from antpitta.model.inputs import FeatureStore
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import predict_sliding, windows_per_batch, frames_per_row

LENGTHS = (251, 64, 30, 100, 1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = SedNet(BackboneConfig(name="test_resnet", pretrained=False), HeadConfig(), 3).eval()
    with torch.no_grad():
        net.head.class_conv.weight *= 300  # so that windows differ
    return net


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (sum(LENGTHS), 32), dtype=np.uint8)
    return FeatureStore(torch.from_numpy(pixels), np.array(LENGTHS))


def naive(net, image, frames, overlap):
    """Each frame's highest probability over the windows that show it, window by window."""
    whole = np.zeros((len(image) + frames, 3))
    first = 0
    while True:
        window = np.zeros((frames, image.shape[1]), dtype=np.uint8)
        part = image[first : first + frames]
        window[: len(part)] = part
        with torch.inference_mode():
            steps = net(torch.from_numpy(window)[None]).framewise[0]
        chance = torch.sigmoid(steps).numpy().repeat(32, axis=0)[:frames]
        whole[first : first + frames] = np.maximum(whole[first : first + frames], chance)
        if first + frames >= len(image):
            return whole[: len(image)]
        first += frames - overlap


@pytest.mark.parametrize(("frames", "overlap"), [(64, 32), (64, 0), (64, 40), (96, 80)])
@pytest.mark.parametrize("batch", [1, 32])
def test_equals_a_loop_over_single_windows(net, pictures, frames, overlap, batch):
    done = []
    images = np.arange(len(LENGTHS))
    found = predict_sliding(net, pictures, images, frames, overlap, batch, update=done.append)
    unit = frames_per_row(32, frames, overlap)
    assert sum(done) == len(LENGTHS)
    at = 0
    for length, rows in zip(LENGTHS, found, strict=True):
        wanted = naive(net, pictures.pixels[at : at + length].numpy(), frames, overlap)
        at += length
        assert rows.shape == (-(-length // unit), 3)
        np.testing.assert_allclose(rows.repeat(unit, axis=0)[:length], wanted, atol=1e-4)
    assert np.ptp(found[0]) > 0.05


def test_images_are_scanned_in_the_order_asked_for(net, pictures):
    every = predict_sliding(net, pictures, np.arange(len(LENGTHS)), 64, 32, 8)
    some = predict_sliding(net, pictures, np.array([3, 0]), 64, 32, 8)
    np.testing.assert_allclose(some[0], every[3], atol=1e-5)
    np.testing.assert_allclose(some[1], every[0], atol=1e-5)
    assert predict_sliding(net, pictures, np.array([], dtype=np.int64), 64, 32, 8) == []


def test_a_net_in_training_is_scanned_without_dropout_or_batch_statistics(net, pictures):
    wanted = predict_sliding(net, pictures, np.array([0]), 64, 32, 8)[0]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    np.testing.assert_array_equal(predict_sliding(net, pictures, np.array([0]), 64, 32, 8)[0], wanted)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_recipes_rows_are_32_frames_and_118_a_minute():
    assert frames_per_row(32, 512, 256) == 32
    assert frames_per_row(32, 512, 49) == 1
    grid = score_grid(MelConfig().time_grid(0.0, 60.0), 32)
    assert grid.frames == 118
    assert grid.hop == pytest.approx(32 * 60 / 3751)


def test_one_image_is_joined_as_it_is():
    image = TimeGrid(hop=0.1, frames=10)
    part = np.arange(6.0).reshape(3, 2).astype(np.float32)  # rows of 4, 4 and 2 frames
    whole, grid = stitch_segments([part], [image], 4)
    np.testing.assert_array_equal(whole, part)
    assert grid == TimeGrid(hop=0.4, frames=3)


def test_at_a_seam_the_higher_row_wins():
    images = [TimeGrid(hop=0.1, frames=10), TimeGrid(hop=0.1, frames=10, start=1.0)]
    first = np.array([[0.1], [0.2], [0.9]], dtype=np.float32)  # 0.0, 0.4, 0.8 to 1.0
    second = np.array([[0.3], [0.4], [0.5]], dtype=np.float32)  # 1.0, 1.4, 1.8 to 2.0
    whole, grid = stitch_segments([first, second], images, 4)
    # rows of 0.4 s: the middles 0.2, 0.6, 0.9 and 1.2, 1.6, 1.9 lie in rows 0, 1, 2, 3, 4, 4
    np.testing.assert_allclose(whole[:, 0], [0.1, 0.2, 0.9, 0.3, 0.5])
    assert grid.end == pytest.approx(2.0)


@pytest.mark.parametrize("duration", [60.0, 60.5, 119.99, 61.03, 120.7, 150.51, 301.3, 3600.0])
@pytest.mark.parametrize("unit", [32, 1])
def test_no_moment_of_a_long_recording_is_left_without_a_score(duration, unit):
    front = MelConfig()
    grids = [front.time_grid(start, stop) for start, stop in front.segments(duration)]
    parts = [np.ones((score_grid(g, unit).frames, 1), dtype=np.float32) for g in grids]
    whole, grid = stitch_segments(parts, grids, unit)
    assert whole.all()
    assert grid.end >= grids[-1].end - 1e-6
    assert grid.end - grids[-1].end < 2 * grid.hop


def test_a_call_is_found_where_it_was_heard_in_every_image():
    front = MelConfig()
    grids = [front.time_grid(start, stop) for start, stop in front.segments(200.0)]
    for moment in (3.0, 59.0, 61.0, 130.0, 199.5):
        parts = []
        for image in grids:
            rows = score_grid(image, 32)
            part = np.zeros((rows.frames, 1), dtype=np.float32)
            if image.start <= moment < image.end:
                part[int((moment - rows.start) / rows.hop)] = 1
            parts.append(part)
        whole, grid = stitch_segments(parts, grids, 32)
        (row,) = np.flatnonzero(whole[:, 0])
        assert grid.seconds(row) - grid.hop <= moment <= grid.seconds(row + 1) + grid.hop


def test_half_precision_scores_are_not_rounded_to_three_digits(net):
    rng = np.random.default_rng(0)
    lengths = np.array(LENGTHS)
    pixels = torch.from_numpy(rng.integers(0, 256, (lengths.sum(), 128), dtype=np.uint8))
    pictures = FeatureStore(pixels, lengths)
    images = np.arange(len(LENGTHS))
    full = predict_sliding(net, pictures, images, 64, 32, 8)
    half = predict_sliding(
        *(net, pictures, images, 64, 32, 8),
        precision=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    for one, two in zip(full, half, strict=True):
        assert two.dtype == np.float32
        np.testing.assert_allclose(one, two, atol=0.2)
    scores = np.concatenate(half)
    assert (np.concatenate(full) != scores).any()
    logits = torch.from_numpy(np.log(scores / (1 - scores)))
    assert not torch.allclose(logits, logits.bfloat16().float(), rtol=1e-5)


def test_a_gpu_is_given_more_windows_at_once():
    assert windows_per_batch(512) == 32
    assert windows_per_batch(512, "cuda") == 512
    assert windows_per_batch(512, "mps") == 32
    assert windows_per_batch(1 << 20) == 1


def test_batches_hold_as_many_windows_as_asked_for_and_whole_images(net, monkeypatch):
    sizes, ticks = [], []
    forward = type(net).forward

    def watched(self, pixels, *given):
        sizes.append(len(pixels))
        return forward(self, pixels, *given)

    monkeypatch.setattr(type(net), "forward", watched)
    lengths = np.array([64, 160, 64, 320])  # at 64 frames, overlap 32: 1, 4, 1 and 9 windows
    pictures = FeatureStore(torch.zeros(lengths.sum(), 128, dtype=torch.uint8), lengths)
    found = predict_sliding(net, pictures, np.arange(4), 64, 32, 5, update=ticks.append)
    assert sizes == [5, 1, 9]
    assert ticks == [2, 1, 1]
    assert len(found) == 4
    assert predict_sliding(net, pictures, np.arange(0), 64, 32, 5) == []
