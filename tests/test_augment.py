"""Masks fall on images, not on windows; mixing is one line of arithmetic."""

import numpy as np
import pytest
import torch

from antpitta.core.stages import MaskConfig
from antpitta.sound.augment import Mixup, draw_mixup, join_mixups, mask
from antpitta.sound.windows import WindowIndex, index_windows

BANDS = 128
LENGTHS = np.full(200, 600)


def holes(masks=None, seed=0):
    """Whole white images, masked: (images, frames, bands), True where a mask lies."""
    cuts = WindowIndex(np.arange(len(LENGTHS)), np.zeros(len(LENGTHS), dtype=np.int64), 600)
    white = torch.full((len(LENGTHS), 600, BANDS), 255, dtype=torch.uint8)
    found = mask(white, cuts, LENGTHS, masks or MaskConfig(), np.random.default_rng(seed))
    assert set(found.unique().tolist()) <= {0, 255}
    assert found.dtype == torch.uint8
    return (found == 0).numpy()


def one_run(flags):
    """The length of the only stretch of True; fails where there are two."""
    assert np.count_nonzero(np.diff(np.concatenate([[0], flags, [0]]))) in (0, 2)
    return int(flags.sum())


def test_an_image_gets_one_time_mask_and_one_band_mask_or_none():
    widths, heights = [], []
    for image in holes():
        times, bands = image.all(axis=1), image.all(axis=0)
        np.testing.assert_array_equal(image, times[:, None] | bands[None])
        widths.append(one_run(times))
        heights.append(one_run(bands))
    widths, heights = np.array(widths), np.array(heights)
    assert widths.max() in range(36, 41)
    assert heights.max() in range(27, 31)
    struck = (widths > 0) | (heights > 0)
    assert 0.38 < struck.mean() < 0.62  # 200 draws at a half
    # both or none: of the images struck, 1 in 41 has a time mask of width 0, 1 in 31 a band mask
    assert ((widths > 0) & (heights > 0))[struck].mean() > 0.85


def test_masks_lie_anywhere():
    found = holes(MaskConfig(probability=1.0))
    # a narrow mask at an edge is rare, so the outer tenths must be hit but by fewer images
    times = found.all(axis=2)
    bands = found.all(axis=1)
    assert times[:, :60].any()
    assert times[:, -60:].any()
    assert bands[:, :13].any()
    assert bands[:, -13:].any()
    assert times.any(axis=1).mean() > 0.9


@pytest.mark.parametrize(
    ("masks", "axis"),
    [(MaskConfig(max_frames=0, probability=1), 2), (MaskConfig(max_bands=0, probability=1), 1)],
)
def test_a_mask_of_at_most_nothing_is_none(masks, axis):
    found = holes(masks)
    assert not found.all(axis=axis).any()
    assert found.any()


def test_no_chance_leaves_the_pixels_untouched():
    assert not holes(MaskConfig(probability=0.0)).any()


def test_windows_of_one_image_that_overlap_show_the_same_hole():
    lengths = np.array([600, 300, 600])
    cuts = index_windows(lengths, frames=200, overlap=120)
    cuts = cuts.take(np.random.default_rng(1).permutation(len(cuts)))
    white = torch.ones(len(cuts), 200, BANDS, dtype=torch.uint8)
    found = mask(
        white, cuts, lengths, MaskConfig(probability=1.0), np.random.default_rng(5)
    ).numpy()
    seen = {}
    for image, first, window in zip(cuts.image, cuts.first, found, strict=True):
        for i, row in enumerate(window):
            at = (int(image), int(first) + i)
            np.testing.assert_array_equal(row, seen.setdefault(at, row))
    assert (found == 0).any()
    by_image = [found[cuts.image == i][0].all(axis=0) for i in range(3)]
    assert len({row.tobytes() for row in by_image}) == 3  # each image has a mask of its own


def test_images_shorter_than_the_mask_are_taken():
    lengths = np.array([5, 1])
    cuts = index_windows(lengths, frames=16, overlap=0)
    white = torch.ones(2, 16, 8, dtype=torch.uint8)
    for seed in range(20):
        assert mask(
            white, cuts, lengths, MaskConfig(probability=1), np.random.default_rng(seed)
        ).shape == (
            2,
            16,
            8,
        )


def test_mix_is_share_of_oneself_and_the_rest_of_the_partner():
    mix = Mixup(torch.tensor([2, 0, 1]), torch.tensor([1.0, 0.25, 0.5]))
    x = torch.tensor([[4.0, 0.0], [0.0, 8.0], [2.0, 2.0]])
    wanted = [[4.0, 0.0], [3.0, 2.0], [1.0, 5.0]]
    assert mix(x).tolist() == wanted
    deep = x.view(3, 2, 1, 1).expand(3, 2, 4, 5)
    assert mix(deep)[:, :, 3, 4].tolist() == wanted


def test_mix_keeps_the_type_that_half_precision_needs():
    mix = Mixup(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
    assert mix(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_shares_follow_beta_and_partners_are_a_permutation():
    mix = draw_mixup(4000, 0.1, np.random.default_rng(2), torch.device("cpu"))
    assert sorted(mix.partner.tolist()) == list(range(4000))
    share = mix.share.numpy()
    assert share.dtype == np.float32
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * 1.2), abs=0.01)  # of Beta(a, a): 1 / (4 (2a + 1))


def test_equal_generators_draw_equal_masks_and_mixes():
    np.testing.assert_array_equal(holes(seed=3), holes(seed=3))
    assert (holes(seed=3) != holes(seed=4)).any()
    one, two = (draw_mixup(9, 0.1, np.random.default_rng(1), torch.device("cpu")) for _ in range(2))
    assert torch.equal(one.share, two.share)
    assert torch.equal(one.partner, two.partner)


def test_mixes_of_parts_join_to_one_that_stays_within_them():
    rng = np.random.default_rng(1)
    parts = [draw_mixup(size, 0.5, rng, torch.device("cpu")) for size in (4, 3)]
    whole = join_mixups(parts)
    x = torch.arange(7.0)
    assert torch.equal(whole(x), torch.cat([parts[0](x[:4]), parts[1](x[4:])]))
    assert sorted(whole.partner.tolist()) == list(range(7))
    assert join_mixups(parts[:1]) is parts[0]
