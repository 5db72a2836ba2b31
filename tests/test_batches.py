"""The batches of an epoch, and the part of a batch that each process gets."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from antpitta.core.config import BackboneConfig, HeadConfig, Recipe, WindowConfig
from antpitta.core.features import MelConfig
from antpitta.core.stages import LossConfig, Stage
from antpitta.core.types import Annotation, Targets
from antpitta.model.network import SedNet
from antpitta.train.batches import (
    SINGLE_PROCESS,
    ProcessRank,
    epoch_batches,
    prepare_batch,
    split_windows,
)
from antpitta.train.loop import batch_loss

FEATURES = MelConfig(
    sample_rate=8000, n_fft=256, hop_length=80, n_mels=16, fmin=50, fmax=4000, segment=4.0
)
RECIPE = Recipe(
    name="tiny",
    description="tests",
    features=FEATURES,  # 100 frames per second, 401 in a segment
    windows=WindowConfig(frames=64, overlap=16, inference_overlap=32),
    backbone=BackboneConfig(name="test_resnet", pretrained=False),
    head=HeadConfig(),
    stages=(Stage(name="one"),),
)


def make_box(recording, start, stop, label="a", present=True):
    return Annotation(recording, start, stop, label, present)


BOXES = [
    make_box("r0", 1.0, 1.4),
    make_box("r0", 3.0, 3.2, "b"),
    make_box("r0", 3.1, 3.3, "a", present=False),
    make_box("r1", 9.0, 9.5, "c"),  # in the third segment of 10 s
    *(make_box(f"r{i}", 0.5, 1.0, "b", present=False) for i in range(2, 7)),
]
DURATIONS = [4.0, 10.0, 4.0, 4.0, 0.3, 4.0, 4.0, 4.0]  # the last one has no box
ALL_RECORDINGS = np.arange(8)


@pytest.fixture(scope="module")
def training_data(make_training_data):
    return make_training_data(RECIPE, DURATIONS, BOXES)


def draw_epoch(training_data, stage, train=ALL_RECORDINGS, pseudo_labels=None, seed=0):
    return epoch_batches(
        stage, training_data, np.array(train), pseudo_labels, np.random.default_rng(seed)
    )


def window_keys(batches):
    return [
        (int(i), int(f))
        for b in batches
        for i, f in zip(b.windows.segment, b.windows.start, strict=True)
    ]


def test_sampled_recordings_are_shown_whole_and_once(training_data):
    train = [0, 1, 4, 7]
    batches = draw_epoch(training_data, Stage(name="s", batch_size=2), train)
    assert len(batches) == 2
    rows = training_data.windows_of(np.array(train))
    expected = [
        (int(training_data.windows.segment[r]), int(training_data.windows.start[r])) for r in rows
    ]
    assert sorted(window_keys(batches)) == sorted(expected)
    for batch in batches:
        assert len(set(training_data.recording_index[batch.windows.segment])) == 2


def test_targets_of_a_batch_are_those_of_its_windows(training_data):
    row_of = {
        key: row
        for row, key in enumerate(
            zip(
                training_data.windows.segment.tolist(),
                training_data.windows.start.tolist(),
                strict=True,
            )
        )
    }
    pseudo_labels = Targets(
        np.random.default_rng(0).random(training_data.labels.value.shape),
        np.random.default_rng(1).random(training_data.labels.value.shape),
    )
    for sample in ("recordings", "known"):
        batches = draw_epoch(
            training_data, Stage(name="s", batch_size=3, sample=sample), pseudo_labels=pseudo_labels
        )
        for batch in batches:
            rows = [row_of[key] for key in window_keys([batch])]
            for shown, expected in (
                (batch.labels, training_data.labels),
                (batch.pseudo_labels, pseudo_labels),
            ):
                np.testing.assert_array_equal(shown.value, expected.value[rows])
                np.testing.assert_array_equal(shown.weight, expected.weight[rows])


def test_known_windows_are_those_with_a_label_or_pseudo_label(training_data):
    stage = Stage(name="s", batch_size=4, sample="known")
    shown = window_keys(draw_epoch(training_data, stage))
    known = training_data.labels.weight.any(axis=1)
    expected = list(
        zip(training_data.windows.segment[known], training_data.windows.start[known], strict=True)
    )
    assert sorted(shown) == sorted(expected)
    assert 7 not in training_data.recording_index[[segment for segment, _ in shown]]
    # a pseudo-label makes a window known, in the training recordings only
    weight = np.zeros_like(training_data.labels.weight)
    row = int(training_data.windows_of(np.array([7]))[2])
    weight[row, 1] = 1
    pseudo_labels = Targets(weight.copy(), weight)
    key = (int(training_data.windows.segment[row]), int(training_data.windows.start[row]))
    assert key in window_keys(draw_epoch(training_data, stage, pseudo_labels=pseudo_labels))
    assert key not in window_keys(draw_epoch(training_data, stage, range(7), pseudo_labels))


def test_a_last_batch_of_one_joins_the_batch_before(training_data):
    assert [
        len(b.windows)
        for b in draw_epoch(training_data, Stage(name="s", sample="crops", batch_size=3))
    ] == [
        3,
        3,
        2,
    ]
    assert [
        len(b.windows)
        for b in draw_epoch(training_data, Stage(name="s", sample="crops", batch_size=7))
    ] == [8]
    single = draw_epoch(training_data, Stage(name="s", sample="crops", batch_size=7), [1])
    assert [len(b.windows) for b in single] == [1]


def test_recordings_without_boxes_give_no_batch(training_data):
    for sample in ("crops", "known"):
        assert draw_epoch(training_data, Stage(name="s", sample=sample), [7]) == []


def test_an_epoch_has_one_crop_of_each_recording_with_present_boxes_and_some_others(training_data):
    stage = Stage(name="s", sample="crops", batch_size=64, absent_crops=3)
    drawn, twice = set(), 0
    for seed in range(40):
        (batch,) = draw_epoch(training_data, stage, seed=seed)
        owners = training_data.recording_index[batch.windows.segment].tolist()
        assert len(owners) == 5
        assert {0, 1} <= set(owners)
        twice += owners.count(0) == 2  # r0 has present and absent boxes
        drawn |= set(owners)
    assert drawn == {0, 1, 2, 3, 4, 5, 6}  # drawn in each epoch; 7 has no box
    assert 5 < twice < 35
    assert (
        len(draw_epoch(training_data, Stage(name="s", sample="crops", absent_crops=0))[0].windows)
        == 2
    )
    (batch,) = draw_epoch(training_data, stage, [1, 7])
    assert training_data.recording_index[batch.windows.segment].tolist() == [1]


def test_a_crop_around_an_absent_box_knows_no_present_one(training_data):
    stage = Stage(name="s", sample="crops", batch_size=64, crop_shifts=(16, 32))
    seen = set()
    for seed in range(30):
        (batch,) = draw_epoch(training_data, stage, [0], seed=seed)
        for row, (_, first) in enumerate(window_keys([batch])):
            known = batch.labels.weight[row].tolist()
            shown = batch.labels.value[row].tolist()
            if first <= 120 < first + 64:
                assert (shown, known) == ([1, 0, 0], [1, 0, 0])
            else:  # around the present "b" at 310, or around the absent "a" at 320
                assert (shown, known) in (([0, 1, 0], [1, 1, 0]), ([0, 0, 0], [1, 0, 0]))
            seen.add((tuple(shown), first))
    assert {320 - 16, 320 - 32} == {first for shown, first in seen if shown == (0, 0, 0)}
    assert {310 - 16, 310 - 32} == {first for shown, first in seen if shown == (0, 1, 0)}


def test_present_and_absent_boxes_of_a_recording_are_two_samples(training_data):
    batches = draw_epoch(training_data, Stage(name="s", sample="verdicts", batch_size=3), [0, 1, 2])
    assert sum(len(np.unique(batch.examples)) for batch in batches) == 4  # r0 twice
    cells = {}
    for batch in batches:
        for example in np.unique(batch.examples):
            own = batch.examples == example
            (owner,) = set(training_data.recording_index[batch.windows.segment[own]])
            assert own.sum() == len(training_data.windows_of(np.array([owner])))
            known = batch.labels.weight[own] > 0
            value = batch.labels.value[own][known]
            assert len(set(value)) == 1  # one kind of labels only
            cells[int(owner), bool(value[0])] = int(known.sum())
    assert set(cells) == {(0, True), (0, False), (1, True), (2, False)}
    stage = Stage(name="s", sample="recordings", batch_size=8)
    (merged,) = draw_epoch(training_data, stage, [0, 1, 2])
    assert sum(cells.values()) == (merged.labels.weight > 0).sum()  # no box overlaps another kind


def test_samples_of_one_recording_have_masks_of_their_own(training_data):
    stage = Stage(name="s", sample="verdicts", batch_size=8)
    (batch,) = draw_epoch(training_data, stage, [0])
    kept = []
    for seed in range(10):
        pixels = prepare_batch(
            batch, training_data, stage, np.random.default_rng(seed), torch.device("cpu")
        ).pixels
        first, second = (pixels[batch.examples == example] for example in (0, 1))
        kept.append(torch.equal(first, second))
    assert 0 < sum(kept) < 10  # equal where neither is masked


@pytest.mark.parametrize("mixup_inputs", [True, False])
def test_mixup_of_labels_alone_leaves_the_inputs(training_data, mixup_inputs):
    stage = Stage(name="s", batch_size=8, mixup=0.5, mixup_inputs=mixup_inputs)
    (batch,) = draw_epoch(training_data, stage)
    rng = np.random.default_rng(0)
    device_batch = prepare_batch(batch, training_data, stage, rng, torch.device("cpu"))
    assert (device_batch.mixup is not None) == mixup_inputs
    labels, _ = device_batch.targets
    assert not np.array_equal(labels.weight.numpy(), batch.labels.weight)


def test_a_crop_lies_around_a_present_box_moved_by_one_of_the_shifts(training_data):
    shifts = (3, 11)
    stage = Stage(
        name="s",
        sample="crops",
        batch_size=64,
        crop_shifts=shifts,
        crop_anchor="centre",
        absent_crops=0,
    )
    middles = {0: (120, 310), 1: (125,)}  # frames in the segment; r1's box lies in [8, 10)
    moves = set()
    for seed in range(60):
        (batch,) = draw_epoch(training_data, stage, seed=seed)
        for segment, first in window_keys([batch]):
            owner = int(training_data.recording_index[segment])
            if owner in middles:
                moved = {first + 32 - middle for middle in middles[owner]}
                (shift,) = moved & {-11, -3, 3, 11}
                moves.add((owner, shift, min(middles[owner], key=lambda m: abs(first + 32 - m))))
            if owner == 1:
                assert training_data.grids[segment].start == 8.0
    assert len(moves) == 3 * 4


@pytest.mark.parametrize("anchor", ["start", "centre"])
def test_a_crop_stays_inside_its_segment(training_data, anchor):
    stage = Stage(name="s", sample="crops", batch_size=64, crop_shifts=(1, 500), crop_anchor=anchor)
    for seed in range(10):
        for segment, first in window_keys(draw_epoch(training_data, stage, seed=seed)):
            assert 0 <= first <= max(0, training_data.features.lengths[segment] - 64)


def test_labels_of_a_crop_are_those_of_the_boxes_that_overlap_it(training_data):
    stage = Stage(name="s", sample="crops", batch_size=64)
    for seed in range(20):
        (batch,) = draw_epoch(training_data, stage, range(1, 8), seed=seed)
        for row, (segment, first) in enumerate(window_keys([batch])):
            grid = training_data.grids[segment]
            value, weight = np.zeros(3), np.zeros(3)
            boxes = training_data.boxes[training_data.recording_index[segment]]
            for box in sorted(boxes, key=lambda b: b.present):
                start, stop = (
                    int((t - grid.start) / grid.hop + 1e-9) for t in (box.start, box.stop)
                )
                shown = range(first, min(first + 64, grid.frames))
                if set(range(start, stop)) & set(shown):
                    column = "abc".index(box.label)
                    value[column], weight[column] = box.present, 1
            np.testing.assert_array_equal(batch.labels.value[row], value)
            np.testing.assert_array_equal(batch.labels.weight[row], weight)
        assert batch.pseudo_labels is None


def test_a_box_beyond_the_end_of_its_recording_labels_nothing(make_training_data):
    training_data = make_training_data(
        RECIPE, [4.0, 9.0], [make_box("r0", 50.0, 51.0), make_box("r1", 8.9, 12.0)]
    )
    (batch,) = draw_epoch(
        training_data, Stage(name="s", sample="crops", batch_size=8, crop_shifts=(3,)), [0, 1]
    )
    assert sorted(training_data.recording_index[batch.windows.segment].tolist()) == [0, 1]
    for row, segment in enumerate(batch.windows.segment):
        assert batch.labels.weight[row].sum() == (training_data.recording_index[segment] == 1)


@pytest.mark.parametrize("sample", ["crops", "recordings", "known"])
def test_an_epoch_depends_on_its_generator_only(training_data, sample):
    stage = Stage(name="s", sample=sample, batch_size=2)
    assert window_keys(draw_epoch(training_data, stage, seed=5)) == window_keys(
        draw_epoch(training_data, stage, seed=5)
    )
    assert window_keys(draw_epoch(training_data, stage, seed=5)) != window_keys(
        draw_epoch(training_data, stage, seed=6)
    )


# ---- a batch on a device, and its parts for several processes


@pytest.fixture(scope="module")
def net(staged_recipe):
    torch.manual_seed(3)
    # in evaluation mode, so that batch norm does not depend on the other windows of a batch
    return SedNet(staged_recipe.backbone, staged_recipe.head, 3, bands=32).eval()


def random_pseudo_labels(training_data):
    rng = np.random.default_rng(0)
    labelled = training_data.labels.weight
    weight = ((labelled == 0) & (rng.random(labelled.shape) < 0.3)) * 1.0
    return Targets(rng.random(weight.shape).astype(np.float32), weight.astype(np.float32))


def loss_and_gradients(net, batch, training_data, stage, process):
    copy = deepcopy(net)
    rng, device = np.random.default_rng(7), torch.device("cpu")
    device_batch = prepare_batch(batch, training_data, stage, rng, device, process=process)
    loss = batch_loss(copy, device_batch, stage, None)
    loss.backward()
    return loss.detach(), [p.grad for p in copy.parameters() if p.grad is not None]


LOSSES = [
    LossConfig(),
    LossConfig(reduction="sum"),
    LossConfig(reduction="balanced", focal_gamma=1.0),
    LossConfig(reduction="mean", unlabelled_target=0.1),
    LossConfig(reduction="mean", unknown="absent"),
    LossConfig(on="boxes", reduction="balanced"),
]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_mean_gradient_of_all_parts_is_that_of_the_whole_batch(staged_data, net, loss, world_size):
    stage = Stage(name="one", batch_size=6, loss=loss)
    rng = np.random.default_rng(1)
    pseudo_labels = random_pseudo_labels(staged_data)
    (batch,) = epoch_batches(stage, staged_data, np.arange(6), pseudo_labels, rng)
    whole, gradients = loss_and_gradients(net, batch, staged_data, stage, SINGLE_PROCESS)
    parts = [
        loss_and_gradients(net, batch, staged_data, stage, ProcessRank(rank, world_size))
        for rank in range(world_size)
    ]
    assert sum(part[0] for part in parts) / world_size == pytest.approx(float(whole), rel=1e-5)
    assert not torch.allclose(parts[0][0], whole, rtol=1e-3)  # otherwise nothing is tested
    by_weight = zip(*(part[1] for part in parts), strict=True)
    for gradient, part_gradients in zip(gradients, by_weight, strict=True):
        mean = sum(part_gradients) / world_size
        torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=1e-5)


def test_parts_have_every_window_once_and_a_small_batch_is_not_split():
    for size in range(1, 30):
        for world_size in (1, 2, 3, 8):
            parts = split_windows(size, ProcessRank(0, world_size))
            assert np.concatenate([np.arange(size)[p] for p in parts]).tolist() == list(range(size))
            assert len(parts) == (world_size if size >= 2 * world_size else 1)
            assert len(parts) == 1 or min(p.stop - p.start for p in parts) >= 2


def test_a_batch_too_small_to_split_counts_once(staged_data, net):
    stage = Stage(name="one", sample="known", batch_size=2)
    batch = epoch_batches(stage, staged_data, np.arange(6), None, np.random.default_rng(1))[0]
    whole = loss_and_gradients(net, batch, staged_data, stage, SINGLE_PROCESS)
    for rank in range(2):
        part = loss_and_gradients(net, batch, staged_data, stage, ProcessRank(rank, 2))
        assert part[0] == whole[0]


def test_all_parts_have_the_same_masks_and_are_mixed_within_themselves(staged_data):
    stage = Stage(name="one", batch_size=6, mixup=0.3, manifold_mixup=0.3)
    (batch,) = epoch_batches(stage, staged_data, np.arange(6), None, np.random.default_rng(1))
    unmixed = stage.model_copy(update={"mixup": 0.0, "manifold_mixup": 0.0})
    device = torch.device("cpu")

    def prepare(stage, process):
        rng = np.random.default_rng(5)
        return prepare_batch(batch, staged_data, stage, rng, device, process=process)

    parts = [prepare(stage, ProcessRank(rank, 2)) for rank in (0, 1)]
    whole = prepare(unmixed, SINGLE_PROCESS)
    assert torch.equal(torch.cat([part.pixels for part in parts]), whole.pixels)
    assert (whole.pixels == 0).any()
    for part in parts:
        for mixup in (part.mixup, part.manifold_mixup):
            assert sorted(mixup.partner.tolist()) == list(range(len(part.pixels)))
        assert part.loss_scale == 2
    for first, second in zip(parts[0].global_targets, parts[1].global_targets, strict=True):
        assert (first is None and second is None) or torch.equal(first.weight, second.weight)


def test_tensors_of_a_batch_are_mapped_in_one_order(staged_data):
    rng = np.random.default_rng(1)
    weight = (staged_data.labels.weight == 0).astype(np.float32)
    pseudo_labels = Targets(weight * 0.7, weight)
    stage = Stage(name="one", sample="known", batch_size=2, mixup=0.3, manifold_mixup=0.3)
    batches = epoch_batches(stage, staged_data, np.arange(6), pseudo_labels, rng)
    first, second = (
        prepare_batch(batch, staged_data, stage, rng, torch.device("cpu")) for batch in batches[:2]
    )
    kept = []
    copy = first.map_tensors(lambda tensor: kept.append(tensor.clone()) or kept[-1])
    assert copy.n_windows == len(first.pixels) == first.n_windows
    assert copy.pixels is kept[0]
    assert len(kept) == 1 + 2 + 2 + 4  # pixels, two mixups, and value and weight of two targets
    inputs = iter(kept)
    second.map_tensors(lambda tensor: next(inputs).copy_(tensor))
    assert torch.equal(copy.pixels, second.pixels)
    assert torch.equal(copy.manifold_mixup.partner, second.manifold_mixup.partner)
    assert torch.equal(copy.targets[1].weight, second.targets[1].weight)
    assert not torch.equal(copy.pixels, first.pixels)
