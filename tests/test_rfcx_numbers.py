"""The competition's recipe, number by number, and its losses by independent arithmetic.

The oracle is written from RECIPE's text alone, in numpy: windows, cells, labels, crops' labels,
mixing, the head and the three losses. It shares only the backbone and the random draws.
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


def test_section_2_the_input():
    front = read_recipe("rfcx").features
    assert (front.sample_rate, front.n_mels, front.hop_length) == (32_000, 128, 512)
    assert (front.n_fft, front.fmin, front.fmax) == (2048, 20, 16_000)
    assert front.segment == 60
    assert front.n_frames(60) == 3751
    for stage in read_recipe("rfcx").stages:
        assert (stage.masks.probability, stage.masks.max_frames, stage.masks.max_bands) == (
            0.5,
            40,
            30,
        )


def test_section_3_the_network():
    recipe = read_recipe("rfcx")
    assert recipe.backbone.name == "resnet18"
    assert recipe.backbone.pretrained
    net = SedNet(recipe.backbone, recipe.head, 24, load_weights=False)
    assert net.head.class_conv.weight.shape == net.head.attention_conv.weight.shape == (24, 512, 1)
    assert net.stride == 32
    with torch.inference_mode():
        found = net.eval()(torch.zeros(1, 512, 128, dtype=torch.uint8))
    assert found.framewise.shape == (1, 16, 24)


def test_section_4_the_windows():
    windows = read_recipe("rfcx").windows
    train = window_starts(3751, windows.frames, windows.overlap)
    assert [(start, start + windows.frames) for start in train] == WINDOWS
    scan = window_starts(3751, windows.frames, windows.inference_overlap)
    assert scan == [256 * i for i in range(14)]


def test_section_5_the_crops():
    stage = read_recipe("rfcx").stages[0]
    assert (stage.sample, stage.init_from, stage.pseudo) == ("crops", None, None)
    assert stage.absent_crops == 30
    assert stage.crop_shifts == (32, 64, 128, 256)
    assert stage.loss.class_weights
    assert stage.loss.unknown == "absent"  # all-zero labels
    assert (stage.mixup, stage.manifold_mixup) == (0.1, 0)
    assert (stage.lr, stage.cosine_t_max, stage.epochs, stage.batch_size) == (1e-3, 10, 50, 64)
    assert stage.grad_accum_steps == 1


def test_section_6_the_masked_stage():
    stage = read_recipe("rfcx").stages[1]
    assert (stage.sample, stage.init_from, stage.pseudo) == ("recordings", "crops", None)
    assert (stage.loss.unknown, stage.loss.reduction) == ("masked", "positives")
    assert not stage.loss.class_weights
    assert (stage.mixup, stage.manifold_mixup, stage.loss.unlabelled_target) == (0, 0, None)
    assert (stage.lr, stage.cosine_t_max, stage.epochs, stage.batch_size) == (3e-4, 5, 5, 32)


def test_section_7_the_pseudo_stage():
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
    assert not stage.loss.class_weights  # class weights hurt present
    assert (stage.mixup, stage.manifold_mixup) == (0, 0.1)
    assert (stage.lr, stage.cosine_t_max, stage.epochs) == (3e-4, 5, 5)
    assert (stage.batch_size, stage.grad_accum_steps) == (8, 4)


def test_section_8_five_folds():
    assert read_recipe("rfcx").folds == 5


def test_settings_that_are_not_the_competitions_are_off():
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
        pytest.skip("the competition's tables are not here")
    return {
        present: pd.read_csv(TABLES / f"train_{kind}.csv")
        for present, kind in ((True, "tp"), (False, "fp"))
    }


def boxes_of(tables):
    boxes = {}
    for present, table in tables.items():
        for row in table.itertuples():
            said = Annotation(row.recording_id, row.t_min, row.t_max, f"s{row.species_id}", present)
            boxes.setdefault(row.recording_id, []).append(said)
    return boxes


def draw_cells(boxes, recordings, keep=lambda said: True):
    """(recordings, 8, 24): value and weight."""
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
    boxes = boxes_of(tables)
    recordings = sorted(boxes)
    assert len(recordings) == 4727
    positive = draw_cells(boxes, recordings, lambda said: said.present)[0]
    assert positive.size == 907_584
    assert positive.sum() == 1655
    negative = draw_cells(boxes, recordings, lambda said: not said.present)[1]
    assert negative.sum() == 10_829
    value, weight = draw_cells(boxes, recordings)
    np.testing.assert_array_equal(value, positive)
    assert ((weight == 1) & (value == 0)).sum() == 10_827


def test_two_boxes_of_one_species_in_one_recording_both_count(tables):
    table = tables[True]
    several = table.groupby(["recording_id", "species_id"]).filter(lambda rows: len(rows) > 1)
    assert several.groupby(["recording_id", "species_id"]).ngroups > 30
    lost = 0
    for (recording, species), rows in several.groupby(["recording_id", "species_id"]):
        value, _ = draw_cells(boxes_of({True: rows}), [recording])
        last, _ = draw_cells(boxes_of({True: rows.tail(1)}), [recording])
        wanted = {
            w
            for row in rows.itertuples()
            for w, (low, high) in enumerate(WINDOWS)
            if int(3751 * row.t_min / 60) < high and int(3751 * row.t_max / 60) > low
        }
        assert set(np.flatnonzero(value[0, :, species])) == wanted
        lost += int(value.sum() - last.sum())
    assert lost > 30  # what the original's label builder dropped


# ---- the losses, by hand, on a few recordings of the competition's shape

BOXES = [  # recording, species, start, stop, present
    (0, 3, 0.5, 2.1, True),
    (0, 3, 40.0, 41.7, True),  # the trap: the same species again
    (0, 7, 7.0, 8.3, False),
    (1, 0, 30.1, 33.9, True),
    (1, 0, 33.0, 34.0, False),  # where both are, present wins
    (1, 12, 59.0, 60.0, True),
    (2, 5, 10.0, 17.9, False),
    (2, 23, 10.0, 10.3, False),
    (3, 3, 51.84, 52.6, True),
    (4, 3, 20.0, 21.0, False),
]
COUNT = 5


def cells_by_hand():
    """+1, -1 or 0: (recordings, 8, 24)."""
    cells = np.zeros((COUNT, 8, 24), dtype=int)
    for kind in (False, True):
        for recording, species, start, stop, present in BOXES:
            if present == kind:
                first, last = int(3751 * start / 60), int(3751 * stop / 60)
                for w, (low, high) in enumerate(WINDOWS):
                    if first < high and last > low:
                        cells[recording, w, species] = 1 if kind else -1
    return cells


@pytest.fixture(scope="module")
def recipe():
    changes = ["backbone.name=test_resnet", "backbone.pretrained=false"]
    changes += [f"stages.{name}.masks.probability=0" for name in ("crops", "masked", "pseudo")]
    return read_recipe("rfcx", tuple(changes))


@pytest.fixture(scope="module")
def training_data(make_training_data, recipe):
    boxes = [Annotation(f"r{r}", a, b, f"s{k}", present) for r, k, a, b, present in BOXES]
    return make_training_data(recipe, [60.0] * COUNT, boxes, SPECIES.names)


@pytest.fixture(scope="module")
def net(recipe):
    torch.manual_seed(0)
    net = SedNet(recipe.backbone, recipe.head, 24).eval()
    with torch.no_grad():
        net.head.class_conv.weight *= 200
        net.head.attention_conv.weight *= 200
    return net


@pytest.fixture
def mixes(monkeypatch):
    """What is drawn for mixup while a loss is computed."""
    drawn, draw = [], batches.draw_mixup

    def watched(size, alpha, rng, device):
        assert alpha == 0.1
        drawn.append(draw(size, alpha, rng, device))
        return drawn[-1]

    monkeypatch.setattr(batches, "draw_mixup", watched)
    return drawn


def pixels_by_hand(training_data, recording, first):
    """One window, zero-padded at the recording's end."""
    whole = training_data.features.pixels.numpy()[3751 * recording : 3751 * (recording + 1)]
    window = np.zeros((512, 128), dtype=np.uint8)
    part = whole[first : first + 512]
    window[: len(part)] = part
    return window


def features_by_hand(net, pixels, share=None, partner=None):
    """Standardised as ImageNet is, perhaps mixed, through the backbone."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    backbone = net.backbone.pretrained_cfg
    if tuple(backbone["mean"]) != tuple(mean):
        mean, std = np.array(backbone["mean"]), np.array(backbone["std"])
    images = pixels[:, None] / 255.0
    images = (images - mean[:, None, None]) / std[:, None, None]
    if share is not None:
        g = share[:, None, None, None]
        images = g * images + (1 - g) * images[partner]
    with torch.inference_mode():
        return net.backbone(torch.from_numpy(images.astype(np.float32))).numpy().astype(np.float64)


def clipwise_by_hand(net, features):
    over_time = np.maximum(features, 0).mean(axis=3)
    a = np.einsum("kc,bct->bkt", net.head.class_conv.weight[:, :, 0].detach().numpy(), over_time)
    b = np.einsum(
        "kc,bct->bkt", net.head.attention_conv.weight[:, :, 0].detach().numpy(), over_time
    )
    b = np.exp(b - b.max(axis=2, keepdims=True))
    return (a * b / b.sum(axis=2, keepdims=True)).sum(axis=2)


def bce(z):
    """-log p and -log(1 - p)."""
    p = 1 / (1 + np.exp(-z))
    return -np.log(p), -np.log(1 - p)


def places(batch):
    return list(zip(batch.windows.segment.tolist(), batch.windows.start.tolist(), strict=True))


def shares(mix):
    return mix.share.numpy().astype(np.float64), mix.partner.numpy()


def test_the_synthetic_cells_equal_those_by_hand(training_data):
    cells = cells_by_hand().reshape(-1, 24)
    np.testing.assert_array_equal(training_data.labels.value, cells == 1)
    np.testing.assert_array_equal(training_data.labels.weight, cells != 0)
    assert list(zip(training_data.windows.segment, training_data.windows.start, strict=True)) == [
        (recording, low) for recording in range(COUNT) for low, _ in WINDOWS
    ]
    assert (cells == 1).sum() == 7
    assert (cells[8:16, 0] == -1).sum() == 0


def test_loss_of_stage_1_equals_the_formula_by_hand(training_data, net, recipe, mixes):
    stage = recipe.stages[0]
    rng = np.random.default_rng(4)
    train = np.arange(COUNT)
    (batch,) = epoch_batches(stage, training_data, train, None, rng)
    assert sorted(image for image, _ in places(batch)) == [0, 1, 2, 3, 4]  # 3 TP, 2 FP recordings
    weights = compute_class_weights(training_data, TrainTask(stage, train, None, (1,)))
    with torch.inference_mode():
        found = float(batch_loss(net, prepare(batch, training_data, stage, rng), stage, weights))

    ((share, partner),) = [shares(mix) for mix in mixes]
    truth = np.zeros((5, 24))
    for i, (recording, first) in enumerate(places(batch)):
        own = [box for box in BOXES if box[0] == recording]
        middles = [int(3751 * (a + b) / 2 / 60) for *_, a, b, present in own if present] or [
            int(3751 * (a + b) / 2 / 60) for *_, a, b, present in own
        ]
        allowed = {
            min(max(middle - 256 + sign * shift, 0), 3751 - 512)
            for middle in middles
            for shift in (32, 64, 128, 256)
            for sign in (-1, 1)
        }
        assert first in allowed
        for _, species, a, b, present in own:
            if int(3751 * a / 60) < first + 512 and int(3751 * b / 60) > first and present:
                truth[i, species] = 1
    assert not truth[[i for i, (r, _) in enumerate(places(batch)) if r in (2, 4)]].any()
    truth = share[:, None] * truth + (1 - share[:, None]) * truth[partner]
    pixels = np.stack([pixels_by_hand(training_data, *place) for place in places(batch)])
    z = clipwise_by_hand(net, features_by_hand(net, pixels, share, partner))
    count = np.zeros(24)
    for _, species, _, _, present in BOXES:
        count[species] += present
    assert count[[0, 3, 12]].tolist() == [1, 3, 1]
    known = count > 0
    np.testing.assert_allclose(weights.numpy()[known], 3 / count[known])
    plus, minus = bce(z)
    wanted = ((truth * plus + (1 - truth) * minus) * weights.numpy()).mean()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_loss_of_stage_2_equals_the_formula_by_hand(training_data, net, recipe):
    stage = recipe.stages[1]
    rng = np.random.default_rng(4)
    (batch,) = epoch_batches(stage, training_data, np.arange(COUNT), None, rng)
    assert len(batch.windows) == 8 * COUNT
    with torch.inference_mode():
        found = float(batch_loss(net, prepare(batch, training_data, stage, rng), stage, None))

    low = {start: w for w, (start, _) in enumerate(WINDOWS)}
    cells = np.stack([cells_by_hand()[r, low[first]] for r, first in places(batch)])
    pixels = np.stack([pixels_by_hand(training_data, *place) for place in places(batch)])
    plus, minus = bce(clipwise_by_hand(net, features_by_hand(net, pixels)))
    wanted = plus[cells == 1].sum() / (cells == 1).sum() + minus[cells == -1].sum()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_loss_of_stage_3_equals_the_formula_by_hand(training_data, net, recipe, mixes):
    stage = recipe.stages[2]
    rng = np.random.default_rng(4)
    hop = 32 * 60 / 3751
    members, mean = {}, np.zeros((COUNT, 8, 24))
    for member in ("one", "two", "three"):
        rows = []
        for r in range(COUNT):
            value = rng.random((118, 24)).astype(np.float32) ** 25
            grid = TimeGrid(hop, 118)
            rows.append(
                OutOfFoldScores(Scores(f"r{r}", grid, SPECIES, value, "m/fold0"), frozenset())
            )
            for w, (low, high) in enumerate(WINDOWS):
                middle = 32 * np.arange(118) + 16
                inside = (middle >= low) & (middle < min(high, 3751))
                mean[r, w] += value[inside].max(axis=0) / 3
        members[member] = rows
    pseudo = make_pseudo_labels(training_data, members, stage.pseudo)
    cells = cells_by_hand()
    soft = (mean >= 0.5) & (cells == 0)
    assert 100 < soft.sum() < soft.size - 100
    np.testing.assert_array_equal(pseudo.targets.weight, soft.reshape(-1, 24))
    np.testing.assert_array_equal(pseudo.targets.value, soft.reshape(-1, 24))
    assert len(pseudo.table) == soft.sum()

    (batch,) = epoch_batches(stage, training_data, np.arange(COUNT), pseudo.targets, rng)
    with torch.inference_mode():
        found = float(batch_loss(net, prepare(batch, training_data, stage, rng), stage, None))

    ((share, partner),) = [shares(mix) for mix in mixes]
    assert len(share) == 8 * COUNT  # a draw for each window of the batch
    low = {start: w for w, (start, _) in enumerate(WINDOWS)}
    at = [(r, low[first]) for r, first in places(batch)]
    positive = np.stack([cells[place] == 1 for place in at]).astype(float)
    negative = np.stack([cells[place] == -1 for place in at]).astype(float)
    softly = np.stack([soft[place] for place in at]).astype(float)
    g = share[:, None]
    positive = g * positive + (1 - g) * positive[partner]
    softly = g * softly + (1 - g) * softly[partner]  # and the negative mask is not mixed
    pixels = np.stack([pixels_by_hand(training_data, *place) for place in places(batch)])
    features = features_by_hand(net, pixels)
    g = share[:, None, None, None]
    mixed = g * features + (1 - g) * features[partner]  # before the ReLU
    plus, minus = bce(clipwise_by_hand(net, mixed))
    wanted = (
        (positive * plus).sum() / positive.sum()
        + (negative * minus).sum()
        + 0.5 * (softly * plus).sum() / softly.sum()
    )
    assert found == pytest.approx(wanted, rel=1e-4)


def test_stage_3_batches_are_8_recordings_of_8_windows(make_training_data, recipe):
    training_data = make_training_data(
        recipe.model_copy(update={"features": recipe.features.model_copy(update={"n_mels": 1})}),
        [60.0] * 18,
        [Annotation("r0", 1.0, 2.0, "s0")],
        SPECIES.names,
    )
    sizes = [
        len(b.windows)
        for b in epoch_batches(
            recipe.stages[2], training_data, np.arange(18), None, np.random.default_rng(0)
        )
    ]
    assert sizes == [64, 64, 16]
