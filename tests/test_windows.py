"""Windows: where they begin, and what is gathered from them."""

import numpy as np
import pytest
import torch

from antpitta.sound.windows import FeatureStore, WindowIndex, index_windows, window_starts


def test_the_recipes_eight_and_fourteen_windows():
    train = window_starts(3751, 512, 49)
    assert [(s, s + 512) for s in train] == [
        (0, 512),
        (463, 975),
        (926, 1438),
        (1389, 1901),
        (1852, 2364),
        (2315, 2827),
        (2778, 3290),
        (3241, 3753),
    ]
    scan = window_starts(3751, 512, 256)
    assert len(scan) == 14
    assert (scan[0], scan[1], scan[-1]) == (0, 256, 3328)


@pytest.mark.parametrize(("frames", "overlap"), [(512, 49), (512, 256), (7, 0), (7, 6), (1, 0)])
def test_windows_cover_every_frame_and_none_is_needless(frames, overlap):
    for length in [1, 2, overlap, frames - 1, frames, frames + 1, 3 * frames, 1000]:
        starts = window_starts(length, frames, overlap)
        assert starts[0] == 0
        assert starts[-1] + frames >= length
        assert len(starts) == 1 or starts[-2] + frames < length
        assert all(np.diff(starts) == frames - overlap)


def test_cut_goes_image_by_image():
    cuts = index_windows(np.array([10, 3, 25]), frames=10, overlap=2)
    assert cuts.image.tolist() == [0, 1, 2, 2, 2]
    assert cuts.first.tolist() == [0, 0, 0, 8, 16]
    assert len(cuts) == 5
    some = cuts.take(np.array([4, 0]))
    assert (some.image.tolist(), some.first.tolist(), some.frames) == ([2, 0], [16, 0], 10)


def test_gather_equals_slicing_each_image_by_hand():
    rng = np.random.default_rng(3)
    images = [rng.integers(1, 256, (n, 4), dtype=np.uint8) for n in (5, 12, 1, 30)]
    lengths = np.array([len(image) for image in images])
    pictures = FeatureStore(torch.from_numpy(np.concatenate(images)), lengths)
    where = [(2, 0), (0, 3), (3, 25), (1, -2), (3, 40), (0, 0)]
    cuts = WindowIndex(np.array([i for i, _ in where]), np.array([f for _, f in where]), 6)
    found = pictures.gather(cuts)
    assert found.shape == (6, 6, 4)
    assert found.dtype == torch.uint8
    for row, (image, first) in zip(found.numpy(), where, strict=True):
        for i, frame in enumerate(range(first, first + 6)):
            inside = 0 <= frame < len(images[image])
            wanted = images[image][frame] if inside else np.zeros(4)
            np.testing.assert_array_equal(row[i], wanted)


def test_gather_of_nothing_is_nothing():
    pictures = FeatureStore(torch.ones(5, 4, dtype=torch.uint8), np.array([5]))
    none = np.array([], dtype=np.int64)
    assert pictures.gather(WindowIndex(none, none, 6)).shape == (0, 6, 4)
