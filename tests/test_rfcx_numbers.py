"""The recipe of the competition: its settings, and its losses by independent arithmetic.

The expected values are computed in numpy from the description of the recipe alone: windows, cells,
labels, crops' labels, mixup, the head and the three losses. Only the backbone and the random
numbers are shared with the code under test.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from antpitta.core.timegrid import TimeGrid
from antpitta.core.types import Annotation, Classes, Scores
from antpitta.files.recipes import read_recipe
from antpitta.model.network import SedNet
from antpitta.sound.targets import BoxFrames
from antpitta.sound.windows import index_windows, window_starts
from antpitta.train import batches
from antpitta.train.batches import epoch_batches
from antpitta.train.data import TrainTask, compute_class_weights
from antpitta.train.loop import batch_loss
from antpitta.train.pseudo import OutOfFoldScores, make_pseudo_labels

TABLES = Path(__file__).parents[1].parent / "shared" / "data" / "rfcx"
prepare = partial(batches.prepare_batch, device=torch.device("cpu"))
SPECIES = Classes(tuple(f"s{i}" for i in range(24)))
WINDOWS = [
    (0, 512),
    (463, 975),
    (926, 1438),
    (1389, 1901),
    (1852, 2364),
    (2315, 2827),
    (2778, 3290),
    (3241, 3753),
]

# ---- the settings, section by section


def test_section_2_gives_the_features():
    features = read_recipe("rfcx").features
    assert (features.sample_rate, features.n_mels, features.hop_length) == (32_000, 128, 512)
    assert (features.n_fft, features.fmin, features.fmax) == (2048, 20, 16_000)
    assert features.segment == 60
    assert features.n_frames(60) == 3751
    for stage in read_recipe("rfcx").stages:
        assert (stage.masks.probability, stage.masks.max_frames, stage.masks.max_bands) == (
            0.5,
            40,
            30,
        )


def test_section_3_gives_the_network():
    recipe = read_recipe("rfcx")
    assert recipe.backbone.name == "resnet18"
    assert recipe.backbone.pretrained
    net = SedNet(recipe.backbone, recipe.head, 24, load_weights=False)
    assert net.head.class_conv.weight.shape == net.head.attention_conv.weight.shape == (24, 512, 1)
    assert net.stride == 32
    with torch.inference_mode():
        logits = net.eval()(torch.zeros(1, 512, 128, dtype=torch.uint8))
    assert logits.framewise.shape == (1, 16, 24)


def test_section_4_gives_the_windows():
    windows = read_recipe("rfcx").windows
    training_starts = window_starts(3751, windows.frames, windows.overlap)
    assert [(start, start + windows.frames) for start in training_starts] == WINDOWS
    inference_starts = window_starts(3751, windows.frames, windows.inference_overlap)
    assert inference_starts == [256 * i for i in range(14)]


def test_section_5_gives_the_stage_crops():
    stage = read_recipe("rfcx").stages[0]
    assert (stage.sample, stage.init_from, stage.pseudo) == ("crops", None, None)
    assert stage.absent_crops == 30
    assert stage.crop_shifts == (32, 64, 128, 256)
    assert stage.loss.class_weights
    assert stage.loss.unknown == "absent"  # a crop without present boxes has labels of 0
    assert (stage.mixup, stage.manifold_mixup) == (0.1, 0)
    assert (stage.lr, stage.cosine_t_max, stage.epochs, stage.batch_size) == (1e-3, 10, 50, 64)
    assert stage.grad_accum_steps == 1


def test_section_6_gives_the_stage_masked():
    stage = read_recipe("rfcx").stages[1]
    assert (stage.sample, stage.init_from, stage.pseudo) == ("recordings", "crops", None)
    assert (stage.loss.unknown, stage.loss.reduction) == ("masked", "positives")
    assert not stage.loss.class_weights
    assert (stage.mixup, stage.manifold_mixup, stage.loss.unlabelled_target) == (0, 0, None)
    assert (stage.lr, stage.cosine_t_max, stage.epochs, stage.batch_size) == (3e-4, 5, 5, 32)


def test_section_7_gives_the_stage_pseudo():
    stage = read_recipe("rfcx").stages[2]
    assert (stage.sample, stage.init_from) == ("recordings", "crops")
    assert (stage.pseudo.teacher, stage.pseudo.threshold, stage.pseudo.negative_threshold) == (
        "masked",
        0.5,
        0.01,
    )
    assert (stage.pseudo.aggregation, stage.pseudo.targets) == ("mean", "hard")
    assert stage.pseudo.cycles in (2, 3)
    assert (stage.loss.unknown, stage.loss.reduction, stage.loss.soft_weight) == (
        "masked",
        "positives",
        0.5,
    )
    assert not stage.loss.class_weights
    assert (stage.mixup, stage.manifold_mixup) == (0, 0.1)
    assert (stage.lr, stage.cosine_t_max, stage.epochs) == (3e-4, 5, 5)
    assert (stage.batch_size, stage.grad_accum_steps) == (8, 4)


def test_section_8_gives_five_folds():
    assert read_recipe("rfcx").folds == 5


def test_settings_beyond_the_competitions_recipe_are_off():
    recipe = read_recipe("rfcx")
    backbone, head = recipe.backbone, recipe.head
    assert (backbone.reduction, backbone.step, backbone.frozen) == (None, None, False)
    assert (head.frequency_pooling, head.smoothing_frames) == ("mean", 1)
    assert (head.background_subtraction, head.within_class_whitening) == (0, 0)
    assert (head.class_band_limits, recipe.embedding, recipe.overlay.copies) == (None, None, 0)
    for stage in recipe.stages:
        assert (stage.weight_decay, stage.optimizer, stage.use_overlays) == (0, "adam", False)
        assert (stage.loss.focal_gamma, stage.loss.unlabelled_target) == (0, None)
        assert stage.loss.on == "windows"


# ---- the cells of the real tables


@pytest.fixture(scope="module")
def tables():
    if not (TABLES / "train_tp.csv").is_file():
        pytest.skip("needs the competition's tables")
    return {
        present: pd.read_csv(TABLES / f"train_{kind}.csv")
        for present, kind in ((True, "tp"), (False, "fp"))
    }


def boxes_by_recording(tables):
    boxes = {}
    for present, table in tables.items():
        for row in table.itertuples():
            species = f"s{row.species_id}"
            box = Annotation(row.recording_id, row.t_min, row.t_max, species, present)
            boxes.setdefault(row.recording_id, []).append(box)
    return boxes


def compute_cells(boxes, recordings, keep=lambda box: True):
    """The value and weight of each cell, (recordings, 8, 24)."""
    recipe = read_recipe("rfcx")
    grid = recipe.features.time_grid(0.0, 60.0)
    lengths = np.full(len(recordings), grid.frames)
    windows = index_windows(lengths, recipe.windows.frames, recipe.windows.overlap)
    kept = [list(filter(keep, boxes.get(recording, ()))) for recording in recordings]
    box_frames = BoxFrames.from_boxes(kept, [grid] * len(recordings), SPECIES)
    targets = box_frames.window_targets(windows)
    shape = len(recordings), 8, len(SPECIES)
    return targets.value.reshape(shape), targets.weight.reshape(shape)


def test_the_real_tables_give_the_recipes_counts_of_cells(tables):
    boxes = boxes_by_recording(tables)
    recordings = sorted(boxes)
    assert len(recordings) == 4727
    positive = compute_cells(boxes, recordings, lambda box: box.present)[0]
    assert positive.size == 907_584
    assert positive.sum() == 1655
    negative = compute_cells(boxes, recordings, lambda box: not box.present)[1]
    assert negative.sum() == 10_829
    value, weight = compute_cells(boxes, recordings)
    np.testing.assert_array_equal(value, positive)
    assert ((weight == 1) & (value == 0)).sum() == 10_827


def test_two_boxes_of_one_species_in_one_recording_both_count(tables):
    table = tables[True]
    several = table.groupby(["recording_id", "species_id"]).filter(lambda rows: len(rows) > 1)
    assert several.groupby(["recording_id", "species_id"]).ngroups > 30
    more_cells = 0
    for (recording, species), rows in several.groupby(["recording_id", "species_id"]):
        value, _ = compute_cells(boxes_by_recording({True: rows}), [recording])
        last, _ = compute_cells(boxes_by_recording({True: rows.tail(1)}), [recording])
        expected = {
            w
            for row in rows.itertuples()
            for w, (low, high) in enumerate(WINDOWS)
            if int(3751 * row.t_min / 60) < high and int(3751 * row.t_max / 60) > low
        }
        assert set(np.flatnonzero(value[0, :, species])) == expected
        more_cells += int(value.sum() - last.sum())
    assert more_cells > 30  # than from the last box of each recording and species alone


# ---- the losses by hand, on a few recordings of the competition's length

BOXES = [  # recording, species, start, stop, present
    (0, 3, 0.5, 2.1, True),
    (0, 3, 40.0, 41.7, True),  # a second box of this species
    (0, 7, 7.0, 8.3, False),
    (1, 0, 30.1, 33.9, True),
    (1, 0, 33.0, 34.0, False),  # overlaps the present box, which wins
    (1, 12, 59.0, 60.0, True),
    (2, 5, 10.0, 17.9, False),
    (2, 23, 10.0, 10.3, False),
    (3, 3, 51.84, 52.6, True),
    (4, 3, 20.0, 21.0, False),
]
N_RECORDINGS = 5


def cells_by_hand():
    """1 for present, -1 for absent, 0 for unknown: (recordings, 8, 24)."""
    cells = np.zeros((N_RECORDINGS, 8, 24), dtype=int)
    for recording, species, start, stop, present in sorted(BOXES, key=lambda box: box[-1]):
        first, last = int(3751 * start / 60), int(3751 * stop / 60)
        for w, (low, high) in enumerate(WINDOWS):
            if first < high and last > low:
                cells[recording, w, species] = 1 if present else -1
    return cells


@pytest.fixture(scope="module")
def recipe():
    changes = ["backbone.name=test_resnet", "backbone.pretrained=false"]
    changes += [f"stages.{name}.masks.probability=0" for name in ("crops", "masked", "pseudo")]
    return read_recipe("rfcx", tuple(changes))


@pytest.fixture(scope="module")
def training_data(make_training_data, recipe):
    boxes = [
        Annotation(f"r{recording}", start, stop, f"s{species}", present)
        for recording, species, start, stop, present in BOXES
    ]
    return make_training_data(recipe, [60.0] * N_RECORDINGS, boxes, SPECIES.names)


@pytest.fixture(scope="module")
def net(recipe):
    torch.manual_seed(0)
    net = SedNet(recipe.backbone, recipe.head, 24).eval()
    with torch.no_grad():
        net.head.class_conv.weight *= 200
        net.head.attention_conv.weight *= 200
    return net


@pytest.fixture
def mixups(monkeypatch):
    """The mixups of the batches that are prepared."""
    mixups, draw_mixup = [], batches.draw_mixup

    def draw_and_keep(size, alpha, rng, device):
        assert alpha == 0.1
        mixups.append(draw_mixup(size, alpha, rng, device))
        return mixups[-1]

    monkeypatch.setattr(batches, "draw_mixup", draw_and_keep)
    return mixups


def pixels_by_hand(training_data, recording, first):
    """One window, padded with 0 after the end of the recording: (frames, bands)."""
    pixels = training_data.features.pixels.numpy()[3751 * recording : 3751 * (recording + 1)]
    window = np.zeros((512, 128), dtype=np.uint8)
    part = pixels[first : first + 512]
    window[: len(part)] = part
    return window


def features_by_hand(net, pixels, share=None, partner=None):
    """Features of windows that are standardized as the backbone expects, and mixed on request."""
    config = net.backbone.pretrained_cfg
    mean, std = np.array(config["mean"]), np.array(config["std"])
    images = pixels[:, None] / 255.0
    images = (images - mean[:, None, None]) / std[:, None, None]
    if share is not None:
        images = mix_by_hand(images, share, partner)
    with torch.inference_mode():
        return net.backbone(torch.from_numpy(images.astype(np.float32))).numpy().astype(np.float64)


def clipwise_by_hand(net, features):
    over_time = np.maximum(features, 0).mean(axis=3)
    weights = (net.head.class_conv.weight, net.head.attention_conv.weight)
    logits, attention = (
        np.einsum("kc,bct->bkt", weight[:, :, 0].detach().numpy(), over_time) for weight in weights
    )
    attention = np.exp(attention - attention.max(axis=2, keepdims=True))
    return (logits * attention / attention.sum(axis=2, keepdims=True)).sum(axis=2)


def bce_by_hand(logits):
    """The losses of present and of absent cells: -log p and -log(1 - p)."""
    p = 1 / (1 + np.exp(-logits))
    return -np.log(p), -np.log(1 - p)


def mix_by_hand(values, share, partner):
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]


def segments_and_starts(batch):
    return list(zip(batch.windows.segment.tolist(), batch.windows.start.tolist(), strict=True))


def share_and_partner(mixup):
    return mixup.share.numpy().astype(np.float64), mixup.partner.numpy()


def test_labels_of_windows_equal_those_by_hand(training_data):
    cells = cells_by_hand().reshape(-1, 24)
    np.testing.assert_array_equal(training_data.labels.value, cells == 1)
    np.testing.assert_array_equal(training_data.labels.weight, cells != 0)
    assert list(zip(training_data.windows.segment, training_data.windows.start, strict=True)) == [
        (recording, low) for recording in range(N_RECORDINGS) for low, _ in WINDOWS
    ]
    assert (cells == 1).sum() == 7
    assert (cells[8:16, 0] == -1).sum() == 0


def test_loss_of_stage_1_equals_the_formula_by_hand(training_data, net, recipe, mixups):
    stage = recipe.stages[0]
    rng = np.random.default_rng(4)
    train = np.arange(N_RECORDINGS)
    (batch,) = epoch_batches(stage, training_data, train, None, rng)
    assert sorted(segment for segment, _ in segments_and_starts(batch)) == [0, 1, 2, 3, 4]
    weights = compute_class_weights(training_data, TrainTask(stage, train, None, (1,)))
    with torch.inference_mode():
        loss = float(batch_loss(net, prepare(batch, training_data, stage, rng), stage, weights))

    ((share, partner),) = [share_and_partner(mixup) for mixup in mixups]
    target = np.zeros((5, 24))
    for i, (recording, first) in enumerate(segments_and_starts(batch)):
        own = [box for box in BOXES if box[0] == recording]
        around = [box for box in own if box[-1]] or own  # absent boxes where none is present
        middles = [int(3751 * (start + stop) / 2 / 60) for _, _, start, stop, _ in around]
        assert first in {
            min(max(middle - 256 + sign * shift, 0), 3751 - 512)
            for middle in middles
            for shift in (32, 64, 128, 256)
            for sign in (-1, 1)
        }
        for _, species, start, stop, present in own:
            if int(3751 * start / 60) < first + 512 and int(3751 * stop / 60) > first and present:
                target[i, species] = 1
    absent_only = [
        i for i, (recording, _) in enumerate(segments_and_starts(batch)) if recording in (2, 4)
    ]
    assert not target[absent_only].any()
    target = mix_by_hand(target, share, partner)
    pixels = np.stack(
        [pixels_by_hand(training_data, *place) for place in segments_and_starts(batch)]
    )
    logits = clipwise_by_hand(net, features_by_hand(net, pixels, share, partner))
    count = np.zeros(24)
    for _, species, _, _, present in BOXES:
        count[species] += present
    assert count[[0, 3, 12]].tolist() == [1, 3, 1]
    np.testing.assert_allclose(weights.numpy()[count > 0], 3 / count[count > 0])
    present_loss, absent_loss = bce_by_hand(logits)
    expected = ((target * present_loss + (1 - target) * absent_loss) * weights.numpy()).mean()
    assert loss == pytest.approx(expected, rel=1e-4)


def test_loss_of_stage_2_equals_the_formula_by_hand(training_data, net, recipe):
    stage = recipe.stages[1]
    rng = np.random.default_rng(4)
    (batch,) = epoch_batches(stage, training_data, np.arange(N_RECORDINGS), None, rng)
    assert len(batch.windows) == 8 * N_RECORDINGS
    with torch.inference_mode():
        loss = float(batch_loss(net, prepare(batch, training_data, stage, rng), stage, None))

    number = {start: w for w, (start, _) in enumerate(WINDOWS)}
    cells = np.stack(
        [
            cells_by_hand()[recording, number[start]]
            for recording, start in segments_and_starts(batch)
        ]
    )
    pixels = np.stack(
        [pixels_by_hand(training_data, *place) for place in segments_and_starts(batch)]
    )
    present_loss, absent_loss = bce_by_hand(clipwise_by_hand(net, features_by_hand(net, pixels)))
    positive, negative = cells == 1, cells == -1
    expected = present_loss[positive].sum() / positive.sum() + absent_loss[negative].sum()
    assert loss == pytest.approx(expected, rel=1e-4)


def random_members(rng):
    """Scores of three runs, and their mean of the highest score in each window."""
    members, mean = {}, np.zeros((N_RECORDINGS, 8, 24))
    grid, middle = TimeGrid(32 * 60 / 3751, 118), 32 * np.arange(118) + 16
    for member in ("a", "b", "c"):
        members[member] = []
        for recording in range(N_RECORDINGS):
            value = rng.random((118, 24)).astype(np.float32) ** 25
            scores = Scores(f"r{recording}", grid, SPECIES, value, "m/fold0")
            members[member].append(OutOfFoldScores(scores, frozenset()))
            for w, (low, high) in enumerate(WINDOWS):
                inside = (middle >= low) & (middle < min(high, 3751))
                mean[recording, w] += value[inside].max(axis=0) / 3
    return members, mean


def test_loss_of_stage_3_equals_the_formula_by_hand(training_data, net, recipe, mixups):
    stage = recipe.stages[2]
    rng = np.random.default_rng(4)
    members, mean = random_members(rng)
    pseudo = make_pseudo_labels(training_data, members, stage.pseudo)
    cells = cells_by_hand()
    is_pseudo = (mean >= 0.5) & (cells == 0)
    assert 100 < is_pseudo.sum() < is_pseudo.size - 100
    np.testing.assert_array_equal(pseudo.targets.weight, is_pseudo.reshape(-1, 24))
    np.testing.assert_array_equal(pseudo.targets.value, is_pseudo.reshape(-1, 24))
    assert len(pseudo.table) == is_pseudo.sum()

    (batch,) = epoch_batches(stage, training_data, np.arange(N_RECORDINGS), pseudo.targets, rng)
    with torch.inference_mode():
        loss = float(batch_loss(net, prepare(batch, training_data, stage, rng), stage, None))

    ((share, partner),) = [share_and_partner(mixup) for mixup in mixups]
    assert len(share) == 8 * N_RECORDINGS  # one for each window of the batch
    number = {start: w for w, (start, _) in enumerate(WINDOWS)}
    at = [(recording, number[start]) for recording, start in segments_and_starts(batch)]
    positive, negative, pseudo_positive = (
        np.stack([mask[place] for place in at]).astype(float)
        for mask in (cells == 1, cells == -1, is_pseudo)
    )
    positive = mix_by_hand(positive, share, partner)
    pseudo_positive = mix_by_hand(pseudo_positive, share, partner)  # absent cells are not mixed
    pixels = np.stack(
        [pixels_by_hand(training_data, *place) for place in segments_and_starts(batch)]
    )
    features = mix_by_hand(features_by_hand(net, pixels), share, partner)  # before the ReLU
    present_loss, absent_loss = bce_by_hand(clipwise_by_hand(net, features))
    expected = (
        (positive * present_loss).sum() / positive.sum()
        + (negative * absent_loss).sum()
        + 0.5 * (pseudo_positive * present_loss).sum() / pseudo_positive.sum()
    )
    assert loss == pytest.approx(expected, rel=1e-4)


def test_stage_3_batches_are_8_recordings_of_8_windows(make_training_data, recipe):
    one_band = recipe.features.model_copy(update={"n_mels": 1})
    training_data = make_training_data(
        recipe.model_copy(update={"features": one_band}),
        [60.0] * 18,
        [Annotation("r0", 1.0, 2.0, "s0")],
        SPECIES.names,
    )
    rng = np.random.default_rng(0)
    epoch = epoch_batches(recipe.stages[2], training_data, np.arange(18), None, rng)
    assert [len(batch.windows) for batch in epoch] == [64, 64, 16]
