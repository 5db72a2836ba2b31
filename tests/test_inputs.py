"""The network's inputs: windows gathered from features, masked and mixed."""

import numpy as np
import pytest
import torch

from antpitta.core.stages import MaskConfig
from antpitta.model.inputs import (
    FeatureStore,
    Mixup,
    draw_mixups,
    draw_spec_mask,
    join_mixups,
)
from antpitta.sound.windows import WindowIndex, index_windows

BANDS = 128
LENGTHS = np.full(200, 600)


def test_gather_equals_slicing_each_segment():
    rng = np.random.default_rng(3)
    segments = [rng.integers(1, 256, (n, 4), dtype=np.uint8) for n in (5, 12, 1, 30)]
    lengths = np.array([len(segment) for segment in segments])
    store = FeatureStore(torch.from_numpy(np.concatenate(segments)), lengths)
    chosen = [(2, 0), (0, 3), (3, 25), (1, -2), (3, 40), (0, 0)]
    windows = WindowIndex(np.array([i for i, _ in chosen]), np.array([f for _, f in chosen]), 6)
    pixels = store.gather(windows)
    assert pixels.shape == (6, 6, 4)
    assert pixels.dtype == torch.uint8
    for window, (segment, first) in zip(pixels.numpy(), chosen, strict=True):
        for i, frame in enumerate(range(first, first + 6)):
            inside = 0 <= frame < len(segments[segment])
            expected = segments[segment][frame] if inside else np.zeros(4)
            np.testing.assert_array_equal(window[i], expected)


def test_gather_of_no_windows_is_empty():
    store = FeatureStore(torch.ones(5, 4, dtype=torch.uint8), np.array([5]))
    none = np.array([], dtype=np.int64)
    assert store.gather(WindowIndex(none, none, 6)).shape == (0, 6, 4)


def mask(pixels, windows, lengths, config, seed):
    """The pixels of the windows, masked."""
    rng, examples = np.random.default_rng(seed), np.zeros_like(windows.segment)
    masks = draw_spec_mask(windows, examples, lengths, pixels.shape[2], config, rng)
    return pixels if masks is None else masks.apply(pixels, windows)


def masked_segments(config=None, seed=0):
    """White segments, masked: (segments, frames, bands), True where a mask lies."""
    windows = WindowIndex(np.arange(len(LENGTHS)), np.zeros(len(LENGTHS), dtype=np.int64), 600)
    white = torch.full((len(LENGTHS), 600, BANDS), 255, dtype=torch.uint8)
    pixels = mask(white, windows, LENGTHS, config or MaskConfig(), seed)
    assert set(pixels.unique().tolist()) <= {0, 255}
    assert pixels.dtype == torch.uint8
    return (pixels == 0).numpy()


def run_length(flags):
    """The length of the only run of True; fails where there are two."""
    assert np.count_nonzero(np.diff(np.concatenate([[0], flags, [0]]))) in (0, 2)
    return int(flags.sum())


def test_segment_has_one_time_mask_and_one_frequency_mask_or_none():
    widths, heights = [], []
    for segment in masked_segments():
        times, bands = segment.all(axis=1), segment.all(axis=0)
        np.testing.assert_array_equal(segment, times[:, None] | bands[None])
        widths.append(run_length(times))
        heights.append(run_length(bands))
    widths, heights = np.array(widths), np.array(heights)
    assert widths.max() in range(25, 39)
    assert heights.max() in range(18, 29)
    masked = (widths > 0) | (heights > 0)
    assert 0.38 < masked.mean() < 0.62  # 200 draws at a half
    # Both or none: of the masked segments, 13 % have a time mask of width 0, 17 % a band mask.
    assert ((widths > 0) & (heights > 0))[masked].mean() > 0.6


def test_masks_lie_anywhere_in_the_segment():
    masked = masked_segments(MaskConfig(probability=1.0))
    # a narrow mask at an edge is rare, so the outer tenths must be hit but by fewer segments
    times = masked.all(axis=2)
    bands = masked.all(axis=1)
    assert times[:, :60].any()
    assert times[:, -60:].any()
    assert bands[:, :13].any()
    assert bands[:, -13:].any()
    assert times.any(axis=1).mean() > 0.75


@pytest.mark.parametrize(
    ("config", "axis"),
    [(MaskConfig(max_frames=0, probability=1), 2), (MaskConfig(max_bands=0, probability=1), 1)],
)
def test_mask_of_maximum_size_0_is_empty(config, axis):
    masked = masked_segments(config)
    assert not masked.all(axis=axis).any()
    assert masked.any()


def test_probability_0_leaves_the_pixels_unchanged():
    assert not masked_segments(MaskConfig(probability=0.0)).any()


def test_overlapping_windows_of_one_segment_show_the_same_mask():
    lengths = np.array([600, 300, 600])
    windows = index_windows(lengths, frames=200, overlap=120)
    windows = windows.take(np.random.default_rng(1).permutation(len(windows)))
    white = torch.ones(len(windows), 200, BANDS, dtype=torch.uint8)
    pixels = mask(white, windows, lengths, MaskConfig(probability=1.0), 6).numpy()
    frames = {}
    for segment, first, window in zip(windows.segment, windows.start, pixels, strict=True):
        for i, row in enumerate(window):
            key = (int(segment), int(first) + i)
            np.testing.assert_array_equal(row, frames.setdefault(key, row))
    assert (pixels == 0).any()
    by_segment = [pixels[windows.segment == i][0] for i in range(3)]
    assert len({row.tobytes() for row in by_segment}) == 3  # each segment has its own mask


def test_examples_of_one_segment_have_masks_of_their_own():
    windows = WindowIndex(np.zeros(40, dtype=np.int64), np.zeros(40, dtype=np.int64), 200)
    lengths, masks = np.array([200]), MaskConfig(probability=1.0)
    examples = np.repeat(np.arange(20), 2)
    rng = np.random.default_rng(0)
    edges = draw_spec_mask(windows, examples, lengths, BANDS, masks, rng).edges.T
    np.testing.assert_array_equal(edges[::2], edges[1::2])
    assert len(np.unique(edges, axis=0)) == 20


def test_padding_is_marked_only_where_the_recipe_asks_for_it():
    pixels = torch.ones(5, 4, dtype=torch.uint8)
    windows = WindowIndex(np.array([0, 0]), np.array([0, 3]), 4)
    assert FeatureStore(pixels, np.array([5])).inside(windows) is None
    inside = FeatureStore(pixels, np.array([5]), marks_padding=True).inside(windows)
    assert inside.tolist() == [[True] * 4, [True, True, False, False]]


def test_segments_shorter_than_the_mask_are_accepted():
    lengths = np.array([5, 1])
    windows = index_windows(lengths, frames=16, overlap=0)
    white = torch.ones(2, 16, 8, dtype=torch.uint8)
    for seed in range(20):
        pixels = mask(white, windows, lengths, MaskConfig(probability=1), seed)
        assert pixels.shape == (2, 16, 8)


def test_mixup_is_the_share_of_the_example_and_the_rest_of_the_partner():
    mixup = Mixup(torch.tensor([2, 0, 1]), torch.tensor(0.25))
    x = torch.tensor([[4.0, 0.0], [0.0, 8.0], [2.0, 2.0]])
    expected = [[2.5, 1.5], [3.0, 2.0], [0.5, 6.5]]
    assert mixup(x).tolist() == expected
    deep = x.view(3, 2, 1, 1).expand(3, 2, 4, 5)
    assert mixup(deep)[:, :, 3, 4].tolist() == expected


def test_mixup_keeps_the_data_type():
    mixup = Mixup(torch.tensor([1, 0]), torch.tensor(0.5))
    assert mixup(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_mixup_shares_follow_beta_and_partners_are_a_permutation():
    rng, cpu = np.random.default_rng(2), torch.device("cpu")
    mixups = [draw_mixups([9], 0.1, rng, cpu)[0] for _ in range(4000)]
    assert all(sorted(mixup.partner.tolist()) == list(range(9)) for mixup in mixups)
    assert mixups[0].share.shape == ()  # one for the whole batch
    share = torch.stack([mixup.share for mixup in mixups]).numpy()
    assert share.dtype == np.float32
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * 1.2), abs=0.01)  # of Beta(a, a): 1 / (4 (2a + 1))


def test_equal_generators_give_equal_masks_and_mixups():
    np.testing.assert_array_equal(masked_segments(seed=3), masked_segments(seed=3))
    assert (masked_segments(seed=3) != masked_segments(seed=4)).any()
    (first,), (second,) = (
        draw_mixups([9], 0.1, np.random.default_rng(1), torch.device("cpu")) for _ in range(2)
    )
    assert torch.equal(first.share, second.share)
    assert torch.equal(first.partner, second.partner)


def test_joined_mixups_stay_within_their_parts():
    parts = draw_mixups([4, 3], 0.5, np.random.default_rng(1), torch.device("cpu"))
    assert torch.equal(parts[0].share, parts[1].share)
    joined = join_mixups(parts)
    x = torch.arange(7.0)
    assert torch.equal(joined(x), torch.cat([parts[0](x[:4]), parts[1](x[4:])]))
    assert sorted(joined.partner.tolist()) == list(range(7))
    assert join_mixups(parts[:1]) is parts[0]
