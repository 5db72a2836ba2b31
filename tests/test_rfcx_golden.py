"""The recipe rfcx against the numbers that the competition's original code computes.

``tests/golden/rfcx`` holds inputs and outputs of that code, and the shared folder beside the
project what rests on the competition's own data. The recipe is loaded as a user's recipe, and its
numbers come from the code that trains and predicts. Logits and random numbers are those of the
files; a few draws are scripted for that (:class:`Scripted`).
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from scipy.stats import chi2, chisquare
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from antpitta.core.types import Annotation, Classes, Dataset, Recording, Targets, WindowScores
from antpitta.files.audio import read_or_silence
from antpitta.files.formats import read_table
from antpitta.files.recipes import read_recipe
from antpitta.files.recordings import find_recordings
from antpitta.files.runs import read_windows, write_windows
from antpitta.model.features import build_feature_extractor
from antpitta.model.head import Logits, SedHead
from antpitta.model.inputs import Mixup, draw_spec_mask
from antpitta.model.losses import CellTargets, masked_loss
from antpitta.model.network import SedNet
from antpitta.model.torch_inference import TorchBackend
from antpitta.predict.predictor import ModelPredictor
from antpitta.scores.metrics import lwlrap
from antpitta.sound.mel import LogMel, to_uint8
from antpitta.sound.windows import WindowIndex, index_windows
from antpitta.train.batches import epoch_batches, prepare_batch
from antpitta.train.checkpoints import ThrottledStore
from antpitta.train.data import TrainTask, build_training_data, compute_class_weights
from antpitta.train.loop import batch_loss, fit, lr_at
from antpitta.train.out_of_fold import assign_folds, read_out_of_fold
from antpitta.train.pseudo import OutOfFoldScores, make_pseudo_labels, window_scores

GOLDEN = Path(__file__).parent / "golden" / "rfcx"
SHARED = Path(__file__).parents[1].parent / "shared"
DATA = SHARED / "data" / "rfcx"
SPECIES = Classes(tuple(map(str, range(24))))
CPU = torch.device("cpu")
HOP = 60 / 3751  # seconds of a frame
STARTS = (0, 463, 926, 1389, 1852, 2315, 2778, 3241)  # of the training windows
NO_MASKS = [f"stages.{name}.masks.probability=0" for name in ("crops", "masked", "pseudo")]


def load(name):
    return np.load(GOLDEN / f"{name}.npz")


def shared_file(name, folder=SHARED / "golden" / "rfcx"):
    path = folder / name
    if not path.is_file():
        pytest.skip(f"needs {name}, which rests on the competition's data, in ../shared")
    return path


@pytest.fixture(scope="module")
def make_recipe(tmp_path_factory):
    """A function that reads the shipped recipe as a user's own file, with changed settings."""
    import antpitta

    path = tmp_path_factory.mktemp("recipe") / "mine.toml"
    shipped = Path(antpitta.__file__).parent / "recipes" / "rfcx.toml"
    path.write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")
    return lambda *changes: read_recipe(str(path), changes)


@pytest.fixture
def make_data(make_training_data, make_recipe):
    """A function that makes recordings r0, r1, ... of a minute, with spectrograms of one band."""

    def make(count, boxes):
        recipe = make_recipe("features.n_mels=1")
        return make_training_data(recipe, [60.0] * count, boxes, SPECIES.names)

    return make


class Scripted:
    """Random numbers by script; a permutation without a script changes nothing."""

    def __init__(self, permutations=(), integers=(), beta=None):
        self.permutations, self.scripted, self.share = [*permutations], [*integers], beta

    def permutation(self, items):
        scripted = self.permutations.pop(0) if self.permutations else None
        if scripted is not None:
            return scripted
        return np.arange(items) if np.isscalar(items) else items

    def integers(self, low, high=None):
        return self.scripted.pop(0)

    def beta(self, a, b):
        assert a == b == 0.1
        return self.share


class FixedLogits(nn.Module):
    """A network with the clipwise logits of the file, whatever it gets."""

    stride = 32

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits).clone())

    def forward(self, *inputs):
        return Logits(self.logits, self.logits, self.logits)


class FixedFeatures(nn.Module):
    """A backbone with the feature maps of the file; it keeps the images that it gets."""

    def __init__(self, maps):
        super().__init__()
        self.maps = nn.Parameter(torch.as_tensor(maps).clone())
        self.images = None

    def forward(self, images):
        self.images = images
        return self.maps[: len(images)] + 0 * images.sum()


def small_net(recipe, maps, weight_a=None, weight_b=None):
    """The recipe's network around feature maps (rows, channels, time, bands)."""
    net = SedNet(recipe.backbone, recipe.head, 24, load_weights=False)
    net.backbone, net.head = FixedFeatures(maps), SedHead(recipe.head, maps.shape[1], 24, 32)
    with torch.no_grad():
        for layer, weight in ((net.head.class_conv, weight_a), (net.head.attention_conv, weight_b)):
            if weight is not None:
                layer.weight.copy_(torch.as_tensor(weight)[:, :, None])
    return net


def box_in(window, species, recording, present):
    """A box that lies in this training window alone."""
    start = (STARTS[window] + 200.5) * HOP
    return Annotation(f"r{recording}", start, start + 10 * HOP, SPECIES.names[species], present)


def boxes_of(cells, recording):
    """The boxes of one recording whose cells (8, 24) are 1 and -1."""
    return [
        box_in(window, species, recording, cells[window, species] == 1)
        for window, species in np.argwhere(np.abs(cells) == 1)
    ]


def in_double(batch):
    return batch.map_tensors(lambda t: t.double() if t.is_floating_point() else t)


def loss_and_gradient(logits, batch, stage, weights=None):
    """The loss and its gradient in float64, and the loss in float32."""
    net = FixedLogits(logits.astype(np.float64))
    loss = batch_loss(net, in_double(batch), stage, None if weights is None else weights.double())
    loss.backward()
    single = batch_loss(FixedLogits(logits), batch, stage, weights)
    return float(loss.detach()), net.logits.grad.numpy(), float(single.detach())


def inverse(order):
    found = np.empty_like(order)
    found[order] = np.arange(len(order))
    return found


# ---- 01: stage 1


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("v1_8", []),
        ("v3_9", ["stages.crops.mixup_inputs=true", "stages.crops.loss.class_weights=false"]),
    ],
)
def test_01_loss_of_crops(make_recipe, make_data, version, changes):
    z = load("01_stage1_loss")
    stage = make_recipe(*NO_MASKS, *changes).stages[0]
    is_absent = np.char.endswith(z["sample"], "_nega")
    order = np.concatenate([np.flatnonzero(~is_absent), np.flatnonzero(is_absent)])
    middle = z["box_middle"][order]
    labels = z["label"][order]
    boxes = []
    for i, row in enumerate(labels):
        start, stop = (middle[i] - 1.5) * HOP, (middle[i] + 2.5) * HOP
        box = partial(Annotation, f"r{i}", max(0.0, start), stop)
        boxes += [box(SPECIES.names[species]) for species in np.flatnonzero(row)]
        boxes += [box("0", present=False)] * (not row.any())
    rest = z["box_count"] - labels.sum(axis=0, dtype=int)  # in recordings that are not in the batch
    for species, name in enumerate(SPECIES.names):
        boxes += [Annotation("r64", 1.0, 2.0, name)] * rest[species]
    training_data = make_data(65, boxes)
    shifts = np.array([32, 64, 128, 256])
    distance = middle - z["crop_start"][order]
    chosen = np.where(np.isin(distance, shifts), np.searchsorted(shifts, distance), 0)
    n_present = int((~is_absent).sum())
    rng = Scripted(
        integers=[np.zeros(n_present, int), np.zeros(64 - n_present, int), chosen],
        permutations=[None, None, inverse(order)[z["perm"][order]]],
        beta=z["gamma"],
    )
    (batch,) = epoch_batches(stage, training_data, np.arange(64), None, rng)
    np.testing.assert_array_equal(batch.windows.start, z["crop_start"][order])
    np.testing.assert_array_equal(batch.labels.value, labels)
    weights = None
    if stage.loss.class_weights:
        weights = compute_class_weights(training_data.dataset)
        np.testing.assert_allclose(weights, z["class_weight"], rtol=1e-7)
    device_batch = prepare_batch(batch, training_data, stage, rng, CPU)
    assert (device_batch.mixup is None) == (version == "v1_8")
    np.testing.assert_array_equal(device_batch.targets[0].positive, z["mixed_label"][order])
    loss, gradient, single = loss_and_gradient(z["logits"][order], device_batch, stage, weights)
    assert loss == pytest.approx(float(z[f"{version}_loss"]), abs=1e-8)
    assert single == pytest.approx(float(z[f"{version}_loss_float32"]), rel=1e-5)
    np.testing.assert_allclose(gradient, z[f"{version}_grad"][order], rtol=0, atol=1e-8)


def test_01_images_are_mixed_after_normalization(make_recipe):
    z = load("01_stage1_loss")
    net = small_net(make_recipe(), np.zeros((6, 6, 16, 4), dtype=np.float32))
    pixels = torch.from_numpy(z["image_uint8"]).transpose(1, 2)  # (6, frames, bands)
    mixup = Mixup(torch.from_numpy(z["image_perm"]), torch.tensor(float(z["image_gamma"])))
    for mix, expected in ((None, z["image_normalised"]), (mixup, z["image_mixed"])):
        net.extract_features(pixels, mix)
        images = net.backbone.images.transpose(2, 3)
        np.testing.assert_allclose(images, expected, rtol=0, atol=1e-6)


def test_01_crops_of_the_real_batch_have_its_labels(make_recipe, make_training_data):
    z = load("01_stage1_loss")
    tables = real_tables()
    recipe = make_recipe("features.n_mels=1")
    names = [sample[:9] for sample in z["sample"]]
    unique = sorted(set(names))
    own = [box for box in tables if box.recording in set(names)]
    boxes = [rename(box, f"r{unique.index(box.recording)}") for box in own]
    training_data = make_training_data(recipe, [60.0] * len(unique), boxes, SPECIES.names)
    present, absent = training_data.crop_centers
    frames = training_data.box_frames
    for i, sample in enumerate(z["sample"]):
        is_present = not sample.endswith("_nega")
        recording = unique.index(names[i])
        centers = present if is_present else absent
        own = slice(centers.offsets[recording], centers.offsets[recording + 1])
        assert z["box_middle"][i] in centers.frame[own]
        crop = WindowIndex(np.array([recording]), z["crop_start"][i : i + 1].astype(int), 512)
        known = frames if is_present else frames.select(present=False)
        np.testing.assert_array_equal(known.window_targets(crop).value[0], z["label"][i])


# ---- 02: stage 2


def test_02_loss_of_present_and_absent_samples(make_recipe, make_data):
    z = load("02_stage2_loss")
    changes = [*NO_MASKS, "stages.masked.loss.positive_weight=0"]
    stage, negative_stage = make_recipe(*NO_MASKS).stages[1], make_recipe(*changes).stages[1]
    recordings = sorted(set(z["recording"]))
    cells = z["cell"].reshape(8, 32, 24)  # window-major
    boxes = [
        box
        for i, recording in enumerate(z["recording"])
        for box in boxes_of(cells[:, i], recordings.index(recording))
    ]
    training_data = make_data(len(recordings), boxes)
    rng = Scripted()
    (batch,) = epoch_batches(stage, training_data, np.arange(len(recordings)), None, rng)
    samples = [
        next(i for i in range(32) if (z["recording"][i], z["table"][i]) == (recording, table))
        for table in ("tp", "fp")
        for recording in sorted(z["recording"][z["table"] == table])
    ]
    rows = (np.arange(8) * 32 + np.array(samples)[:, None]).ravel()
    found = np.where(batch.labels.weight > 0, 2 * batch.labels.value - 1, 0)
    np.testing.assert_array_equal(found, z["cell"][rows])
    device_batch = prepare_batch(batch, training_data, stage, rng, CPU)
    loss, gradient, single = loss_and_gradient(z["logits"][rows], device_batch, stage)
    assert loss == pytest.approx(float(z["loss"]), abs=1e-10)
    assert single == pytest.approx(float(z["loss_float32"]), rel=1e-5)
    np.testing.assert_allclose(gradient, z["grad"][rows], rtol=0, atol=1e-10)
    negative, _, _ = loss_and_gradient(z["logits"][rows], device_batch, negative_stage)
    assert negative == pytest.approx(float(z["negative_part"]), abs=1e-10)
    assert loss - negative == pytest.approx(float(z["positive_part"]), abs=1e-10)


def test_02_loss_of_the_published_function(make_recipe):
    z = load("02_stage2_loss")
    frames = np.zeros((6, 24, 512))
    for row, species, first, end, value in z["seed_runs"]:
        frames[row, species, first:end] = value
    positive, negative = (torch.from_numpy((frames == v).any(axis=2)).double() for v in (1, -1))
    logits = torch.from_numpy(z["seed_logits"]).double().requires_grad_()
    targets = CellTargets.from_parts(positive, negative)
    loss = masked_loss(logits, targets, None, make_recipe().stages[1].loss)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(z["seed_loss"]), abs=1e-10)
    assert float(loss.detach()) == pytest.approx(float(z["seed_loss_float32"]), rel=1e-5)
    np.testing.assert_allclose(logits.grad, z["seed_grad"], rtol=0, atol=1e-10)


# ---- 03: stage 3


@pytest.fixture
def stage_3(make_data):
    """A function from a stage to the batch of file 03, and its rows in our order."""
    z = load("03_stage3_loss")
    cells = z["cell"].reshape(8, 8, 24)  # window, recording, species
    training_data = make_data(8, [box for i in range(8) for box in boxes_of(cells[:, i], i)])
    rows = (np.arange(8) * 8 + np.arange(8)[:, None]).ravel()
    logit = np.choose(cells + 2, [-8.0, -2.0, -2.0, -2.0, 1.0]).astype(np.float32)
    members = {"me": clipwise_scores(training_data, logit.transpose(1, 0, 2))}

    def make(stage):
        pseudo_labels = make_pseudo_labels(training_data, members, stage.pseudo)
        np.testing.assert_array_equal(pseudo_labels.targets.weight, z["cell"][rows] == 2)
        np.testing.assert_array_equal(pseudo_labels.hard_negatives, z["cell"][rows] == -2)
        perm = inverse(rows)[z["perm"][rows]]
        rng = Scripted(permutations=[None, perm], beta=z["gamma"])
        recordings = np.arange(8)
        (batch,) = epoch_batches(stage, training_data, recordings, pseudo_labels.targets, rng)
        return prepare_batch(batch, training_data, stage, rng, CPU), rows

    return make


def clipwise_scores(training_data, logit, source="run/masked/fold0"):
    """Clipwise logits (recordings, 8, 24) as out-of-fold scores of the recordings."""
    rows = []
    for i, recording in enumerate(training_data.dataset.recordings):
        windows = training_data.windows_of(np.array([i]))
        start, stop = np.array([training_data.window_times(int(w)) for w in windows]).T
        scores = WindowScores(recording.id, start, stop, SPECIES, logit[i], source)
        rows.append(OutOfFoldScores(scores, frozenset()))
    return rows


FOCAL = ["stages.pseudo.loss.focal_gamma=2", "stages.pseudo.loss.soft_weight=1"]
DIVIDED = [*FOCAL, "stages.pseudo.loss.reduction=positives"]


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("v4_3", []),
        ("v4_2", ["stages.pseudo.manifold_mixup=0"]),
        ("v3_9_third", FOCAL),
        ("v3_4_third", DIVIDED),
        ("v3_9_fourth", [*DIVIDED, "stages.pseudo.loss.positive_weight=2"]),
    ],
)
def test_03_loss_with_pseudo_labels(make_recipe, stage_3, version, changes):
    z = load("03_stage3_loss")
    stage = make_recipe(*NO_MASKS, *changes).stages[2]
    batch, rows = stage_3(stage)
    loss, gradient, single = loss_and_gradient(z["logits"][rows], batch, stage)
    assert loss == pytest.approx(float(z[f"{version}_loss"]), abs=1e-8)
    assert single == pytest.approx(float(z[f"{version}_loss"]), rel=1e-5)
    np.testing.assert_allclose(gradient, z[f"{version}_grad"][rows], rtol=0, atol=1e-8)
    if version == "v4_3":
        assert single == pytest.approx(float(z["v4_3_loss_float32"]), rel=1e-5)


def test_03_loss_through_the_head_with_mixed_feature_maps(make_recipe, stage_3):
    z = load("03_stage3_loss")
    recipe = make_recipe(*NO_MASKS)
    batch, rows = stage_3(recipe.stages[2])
    net = small_net(recipe, z["features"][rows], z["weight_a"], z["weight_b"]).double()
    loss = batch_loss(net, in_double(batch), recipe.stages[2], None)
    loss.backward()
    clipwise = net(batch.pixels, manifold_mixup=in_double(batch).manifold_mixup).clipwise
    np.testing.assert_allclose(clipwise.detach(), z["head_clipwise"][rows], rtol=0, atol=1e-8)
    assert float(loss.detach()) == pytest.approx(float(z["head_loss"]), abs=1e-8)
    gradients = {
        "a": net.head.class_conv.weight.grad[:, :, 0],
        "b": net.head.attention_conv.weight.grad[:, :, 0],
    }
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, z[f"head_grad_{name}"], rtol=0, atol=1e-8)
    expected = z["head_grad_features"][rows]
    np.testing.assert_allclose(net.backbone.maps.grad, expected, rtol=0, atol=1e-7)


# ---- 04: learning rates and steps


def test_04_rates_of_all_batches(make_recipe):
    z = load("04_rates")
    for number, stage in enumerate(make_recipe().stages):
        batches = int(z["batches_per_epoch"][number])
        rates = [lr_at(stage, e + i / batches) for e in range(stage.epochs) for i in range(batches)]
        np.testing.assert_allclose(rates, z[f"stage{number + 1}"], rtol=0, atol=1e-15)
        settings = (stage.batch_size, stage.epochs, stage.cosine_t_max, stage.lr)
        assert settings == tuple(
            z[name][number] for name in ("batch", "epochs", "t_max_epochs", "peak")
        )


def test_04_the_optimizer_steps_where_the_originals_does(make_recipe, make_training_data):
    z = load("04_rates")
    recipe = make_recipe(*NO_MASKS, "features.n_mels=1", "stages.pseudo.epochs=1")
    stage, count = recipe.stages[2], 8 * int(z["batches_per_epoch"][2])
    training_data = make_training_data(recipe, [1.0] * count, [], SPECIES.names)
    net = small_net(recipe, np.ones((8, 2, 16, 1), dtype=np.float32))
    batches, steps, rates = [], [], []
    net.register_forward_pre_hook(lambda *called: batches.append(1))

    def keep_step(optimizer, *rest):
        steps.append(len(batches) - 1)
        rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(keep_step)
    zeros = np.zeros_like(training_data.labels.weight)
    task = TrainTask(stage, np.arange(count), Targets(zeros, zeros), (1,))
    fabric = Fabric(accelerator="cpu", devices=1)
    fit(net, task, training_data, fabric, ThrottledStore(NoStore()), lambda result: None)
    handle.remove()
    assert steps == z["stage3_optimizer_steps"].tolist()
    dropped = len(batches) - 1 - (len(batches) - 1) % 4 + 1
    assert len(batches) - dropped == int(z["stage3_batches_thrown_away"])
    np.testing.assert_allclose(rates, z["stage3"][steps], rtol=0, atol=1e-15)


class NoStore:
    def load(self):
        return None

    def save(self, epoch, state):
        pass


# ---- 05: windows and padding


def test_05_windows(make_recipe):
    table = pd.read_csv(GOLDEN / "05_windows.csv").set_index("grid")
    lengths = np.array([3751])
    windows = make_recipe().windows
    narrow = make_recipe(
        "windows.frames=256", "windows.overlap=23", "windows.inference_overlap=23"
    ).windows
    for grid, frames, overlap in (
        ("train8", windows.frames, windows.overlap),
        ("scan14", windows.frames, windows.inference_overlap),
        ("w256_16", narrow.frames, narrow.overlap),
    ):
        expected = table.loc[grid]
        starts = index_windows(lengths, frames, overlap).start
        np.testing.assert_array_equal(starts, expected["start"])
        np.testing.assert_array_equal(starts + frames, expected["end"])
        sound = np.minimum(starts + frames, 3751) - starts
        np.testing.assert_array_equal(sound, expected["frames_of_sound"])
        np.testing.assert_array_equal(frames - sound, expected["frames_of_padding"])
    # The grid of v1_8 leaves the last 12 frames unseen; ours has one window more.
    starts = index_windows(lengths, 512, 51).start
    np.testing.assert_array_equal(starts[:-1], table.loc["v1_8_eval8", "start"])


@pytest.fixture
def padded_pixels(make_recipe):
    z = load("05_padding")
    recipe = make_recipe("features.n_mels=4", *NO_MASKS)
    recording = Recording("r0", Path("r0.flac"), 48_000, 60 * 48_000)
    dataset = Dataset((recording,), (box_in(0, 3, 0, present=True),), SPECIES)
    pixels = np.ascontiguousarray(z["image_uint8"].T)
    return recipe, build_training_data(dataset, recipe, [pixels], CPU), pixels


def test_05_padding_of_training_windows(padded_pixels):
    z = load("05_padding")
    recipe, training_data, _ = padded_pixels
    stage = recipe.stages[1]
    (batch,) = epoch_batches(stage, training_data, np.array([0]), None, Scripted())
    rows = np.searchsorted(STARTS, batch.windows.start)
    np.testing.assert_array_equal(rows, z["train_row_of_window"])
    net = small_net(recipe, np.zeros((8, 6, 16, 1), dtype=np.float32))
    batch_loss(net, prepare_batch(batch, training_data, stage, Scripted(), CPU), stage, None)
    images = net.backbone.images[int(np.argmax(batch.windows.start))].transpose(1, 2)
    np.testing.assert_allclose(images, z["train_window_7"], rtol=0, atol=1e-6)
    padding = images[:, :, 510:].flatten(1)
    expected = np.tile(z["pad_value_after_normalising"][:, None], padding.shape[1])
    np.testing.assert_allclose(padding, expected, rtol=0, atol=1e-6)


def test_05_padding_of_prediction_windows(padded_pixels):
    z = load("05_padding")
    recipe, _, pixels = padded_pixels
    net = small_net(recipe, np.zeros((14, 6, 16, 1), dtype=np.float32))
    TorchBackend([net], 3751, recipe.windows).predict(pixels)
    images = net.backbone.images[13].transpose(1, 2)
    np.testing.assert_allclose(images, z["scan_window_13"], rtol=0, atol=1e-6)


# ---- 06: cells of the real tables


def real_tables():
    """The boxes of both tables of the competition."""
    paths = [shared_file(f"train_{kind}.csv", DATA) for kind in ("tp", "fp")]
    tables = [read_table(path, verdict) for path, verdict in zip(paths, (True, False), strict=True)]
    return [box for table in tables for box in table.annotations]


def rename(box, recording):
    return Annotation(recording, box.start, box.stop, box.label, box.present)


@pytest.fixture(scope="module")
def real_data(make_recipe, make_training_data):
    boxes = real_tables()
    names = sorted({box.recording for box in boxes})
    position = {name: f"r{i}" for i, name in enumerate(names)}
    recipe = make_recipe("features.n_mels=1")
    renamed = [rename(box, position[box.recording]) for box in boxes]
    return make_training_data(recipe, [60.0] * len(names), renamed, SPECIES.names), names


def code(targets):
    return np.where(targets.weight > 0, 2 * targets.value - 1, 0).astype(int)


def test_06_totals_of_cells(real_data):
    training_data, names = real_data
    assert len(names) == 4727
    assert training_data.labels.value.size == 907_584
    table = pd.read_csv(shared_file("06_cells_totals.csv")).set_index("species")
    table = table[~table.index.astype(str).str.startswith("total")]
    by_name = {
        "present_boxes": [sum(b.present for b in own) for own in by_species(training_data)],
        "absent_boxes": [sum(not b.present for b in own) for own in by_species(training_data)],
    }
    present, absent = (code(targets) for targets in training_data.verdict_labels)
    merged = code(training_data.labels)
    by_name |= {
        "stage2_positive": (present == 1).sum(axis=0),
        "stage2_negative": (absent == -1).sum(axis=0),
        "both": ((present == 1) & (absent == -1)).sum(axis=0),
        "v4_3_positive": (merged == 1).sum(axis=0),
        "v4_3_negative": (merged == -1).sum(axis=0),
    }
    for name, values in by_name.items():
        np.testing.assert_array_equal(table[name].to_numpy()[:24], values, err_msg=name)


def by_species(training_data):
    groups = [[] for _ in SPECIES.names]
    for box in training_data.dataset.annotations:
        groups[int(box.label)].append(box)
    return groups


def test_06_cells_of_200_recordings(real_data):
    training_data, names = real_data
    table = pd.read_csv(shared_file("06_cells_200.csv"))
    position = {name: i for i, name in enumerate(names)}
    listed = sorted({position[name] for name in table["recording_id"]})
    forms = dict(
        zip(
            ("stage2_tp_sample", "stage2_fp_sample", "v4_3_cell"),
            (*training_data.verdict_labels, training_data.labels),
            strict=True,
        )
    )
    owner = table["recording_id"].map(position).to_numpy()
    place = (owner, table["window"].to_numpy(), table["species"].to_numpy())
    for name, targets in forms.items():
        expected = np.zeros((len(names), 8, 24), dtype=int)
        expected[place] = table[name]
        found = code(targets).reshape(len(names), 8, 24)
        np.testing.assert_array_equal(found[listed], expected[listed], err_msg=name)


# ---- 07: the network


def test_07_head(make_recipe):
    z = load("07_head")
    net = small_net(make_recipe(), z["features"].astype(np.float32), z["weight_a"], z["weight_b"])
    with torch.inference_mode():
        logits = net.eval()(torch.zeros(2, 512, 1, dtype=torch.uint8))
    np.testing.assert_allclose(logits.clipwise, z["clipwise"], rtol=0, atol=1e-5)
    steps = logits.framewise.transpose(1, 2)
    np.testing.assert_allclose(steps, z["step"], rtol=0, atol=1e-5)
    frames = steps.repeat_interleave(net.stride, dim=2)
    np.testing.assert_allclose(frames, z["framewise"], rtol=0, atol=1e-5)


def rule(number, size):
    """``size`` numbers in 0..1 of tensor ``number``: splitmix64."""
    with np.errstate(over="ignore"):
        x = np.uint64(number << 32) + np.arange(1, size + 1, dtype=np.uint64)
        x *= np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(40)).astype(np.float64) / 2**24


def value_by_rule(number, name, shape):
    u = rule(number, int(np.prod(shape))).reshape(shape)
    if name.startswith("fc_"):
        return (0.02 if name.startswith("fc_a") else 0.01) * (2 * u - 1)
    if len(shape) == 4:
        return (2 * u - 1) * np.sqrt(6 / np.prod(shape[1:]))
    is_scale = name.endswith(("weight", "running_var"))
    return 0.5 + u if is_scale else 0.2 * (2 * u - 1)


def test_07_network(make_recipe):
    z, table = load("07_network"), pd.read_csv(GOLDEN / "07_network_tensors.csv")
    recipe = make_recipe()
    net = SedNet(recipe.backbone, recipe.head, 24, load_weights=False).eval()
    state = net.state_dict()
    for number, name, shape, mean, first in table.itertuples(index=False):
        sizes = tuple(map(int, str(shape).split("x")))
        value = value_by_rule(number, name, sizes).astype(np.float32)
        assert value.mean(dtype=np.float64) == pytest.approx(mean, abs=1e-6)
        assert value.ravel()[0] == pytest.approx(first, abs=1e-7)
        own = {"fc_a.weight": "head.class_conv.weight", "fc_b.weight": "head.attention_conv.weight"}
        key = own.get(name, f"backbone.{name}")
        state[key] = torch.from_numpy(value).view_as(state[key])
    named = {key for key in state if not key.endswith("num_batches_tracked")}
    assert len(named) == len(table)
    net.load_state_dict(state)
    pixels = torch.from_numpy(z["image_uint8"]).transpose(1, 2)  # time first
    with torch.inference_mode():
        features, logits = net.extract_features(pixels), net(pixels)
    largest = float(np.abs(z["feature_mean_over_bands"]).max())
    expected = z["feature_mean_over_bands"]
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(logits.clipwise, z["clipwise"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits.framewise.transpose(1, 2), z["step"], rtol=0, atol=1e-4)


# ---- 08: pseudo-labels


def pseudo_codes(training_data, members, pseudo):
    """The codes of all cells, (recordings, 8, 24): labels, else pseudo-labels."""
    pseudo_labels = make_pseudo_labels(training_data, members, pseudo)
    cells = code(training_data.labels)
    cells[pseudo_labels.targets.weight > 0] = 2
    cells[pseudo_labels.hard_negatives] = -2
    return cells.reshape(-1, 8, 24)


def members_on_disk(training_data, logits, folder):
    """Members whose clipwise logits (members, recordings, 8, 24) went through their files."""
    members = {}
    for number, logit in enumerate(logits):
        rows = clipwise_scores(training_data, logit, f"run{number}/masked/fold0")
        path = folder / f"{number}.parquet"
        write_windows([row.scores for row in rows], path)
        folds = np.zeros(len(rows), dtype=int)  # all in the held-out fold 0
        members[f"run{number}"] = read_out_of_fold(training_data.dataset, path, folds, read_windows)
    return members


@pytest.mark.parametrize("heard", ["v4_3", "v4_2", None])
def test_08_pseudo_labels_of_averaged_members(make_recipe, make_data, tmp_path, heard):
    z = load("08_pseudo")
    pseudo = make_recipe().stages[2].pseudo
    boxes = (
        []
        if heard is None
        else [box for i in range(6) for box in boxes_of(z[f"heard_{heard}"][i], i)]
    )
    training_data = make_data(6, boxes)
    members = members_on_disk(training_data, z["member_clipwise"], tmp_path)
    mean = window_scores(training_data, members).mean(axis=0).reshape(6, 8, 24)
    np.testing.assert_allclose(mean, z["mean_probability"], rtol=0, atol=1e-12)
    expected = z["pseudo_code"] if heard is None else z[f"merged_{heard}"]
    np.testing.assert_array_equal(pseudo_codes(training_data, members, pseudo), expected)


def test_08_thresholds(make_recipe, make_data):
    z = load("08_pseudo")
    training_data = make_data(1, [])
    probability = np.full((1, 8, 24), 0.1)
    probability[0, 0, :11] = z["probe_probability"]
    with np.errstate(divide="ignore"):
        logit = np.log(probability) - np.log1p(-probability)
    members = {"me": clipwise_scores(training_data, logit)}
    codes = pseudo_codes(training_data, members, make_recipe().stages[2].pseudo)
    np.testing.assert_array_equal(codes[0, 0, :11], z["probe_code"])


def test_08_votes(make_recipe, make_data, tmp_path):
    z = load("08_pseudo")
    training_data = make_data(3, [])
    vote = make_recipe("stages.pseudo.pseudo.aggregation=vote", "stages.pseudo.pseudo.min_votes=3")
    members = members_on_disk(training_data, z["vote_clipwise"], tmp_path)
    codes = pseudo_codes(training_data, members, vote.stages[2].pseudo)
    np.testing.assert_array_equal(np.sign(codes), z["vote_label"])


# ---- 09: masks


@pytest.fixture(scope="module")
def drawn_masks(make_recipe):
    """The edges of 100,000 masks: (4, draws)."""
    count = 100_000
    zeros = np.zeros(count, dtype=np.int64)
    masks = make_recipe().stages[0].masks
    windows, lengths = WindowIndex(zeros, zeros, 3751), np.array([3751])
    rng = np.random.default_rng(0)
    return draw_spec_mask(windows, np.arange(count), lengths, 128, masks, rng).edges


def same_distribution(first, second):
    """The p-value of two histograms having one distribution."""
    both = first + second
    kept = both >= 10
    shares = [first.sum() / both.sum(), second.sum() / both.sum()]
    statistic = sum(
        ((own[kept] - share * both[kept]) ** 2 / (share * both[kept])).sum()
        for own, share in zip((first, second), shares, strict=True)
    )
    return float(chi2.sf(statistic, kept.sum() - 1))


@pytest.mark.parametrize(("axis", "first"), [("time", 0), ("freq", 2)])
def test_09_widths_and_starts_of_masks(drawn_masks, axis, first):
    z = load("09_masks")
    start, end = drawn_masks[first : first + 2]
    other = drawn_masks[2 - first : 4 - first]
    width = end - start
    probability = z[f"{axis}_width_probability"]
    size = {"time": 40, "freq": 30}[axis]
    longest = np.arange(1, size)
    formula = [(1 / longest[longest > w]).sum() / size + (w == 0) / size for w in range(size)]
    np.testing.assert_allclose(probability, formula, atol=1e-12)
    # A coin for both masks together: an example with another mask has been drawn.
    masked = width[(other[0] < other[1]) | (width > 0)]
    counts = np.bincount(masked, minlength=size)
    assert counts[-1] == 0
    shown = np.bincount(masked, minlength=size)[1:-1]
    expected = probability[1:-1] / probability[1:-1].sum() * shown.sum()
    assert chisquare(shown, expected).pvalue > 1e-3
    assert same_distribution(shown, z[f"{axis}_width_count"][1:-1]) > 1e-3
    if axis == "time":
        starts = np.histogram(start[width > 0], z["time_start_edges"])[0]
    else:
        starts = np.bincount(start[width > 0], minlength=128)
    # Empty masks have no start of their own here, and starts hardly depend on the width.
    assert same_distribution(starts, z[f"{axis}_start_count"]) > 1e-3


def test_09_one_coin_for_both_masks(drawn_masks):
    z = load("09_masks")
    draws = int(z["draws"])
    left, right, bottom, top = drawn_masks
    empty = {axis: float(z[f"{axis}_width_probability"][0]) for axis in ("time", "freq")}
    shown = ((right > left) & (top > bottom)).sum()
    expected = int(z["applied_both"]) * (1 - empty["time"]) * (1 - empty["freq"])
    assert abs(shown - expected) < 5 * np.sqrt(draws / 4)
    assert int(z["applied_one_only"]) == 0
    one_only = ((right > left) ^ (top > bottom)).sum()  # only where the other one is empty
    share = empty["time"] + empty["freq"] - 2 * empty["time"] * empty["freq"]
    assert abs(one_only - int(z["applied_both"]) * share) < 5 * np.sqrt(draws / 4)
    unmasked = int(z["applied_none"]) + int(z["applied_both"]) * empty["time"] * empty["freq"]
    assert abs(((right == left) & (top == bottom)).sum() - unmasked) < 5 * np.sqrt(draws / 4)


def test_09_masks_are_black(make_recipe):
    z = load("09_masks")
    net = small_net(make_recipe(), np.zeros((1, 6, 16, 1), dtype=np.float32))
    windows = WindowIndex(np.array([0]), np.array([0]), 512)
    white = torch.full((1, 512, 128), 255, dtype=torch.uint8)
    masks = make_recipe("stages.crops.masks.probability=1").stages[0].masks
    mask = draw_spec_mask(
        windows, np.array([0]), np.array([512]), 128, masks, np.random.default_rng(1)
    )
    left, right, _, _ = mask.edges[:, 0]
    net.extract_features(mask.apply(white, windows))
    filled = net.backbone.images[0, :, left:right, 0]
    assert filled.shape[1] > 0
    expected = np.tile(z["fill_after_normalising"][:, None], filled.shape[1])
    np.testing.assert_allclose(filled, expected, rtol=0, atol=1e-6)


# ---- 10: crops


CROPS = {
    "v1_8": [],
    "v3_9": ["stages.crops.crop_anchor=centre", "stages.crops.crop_shifts=[0,32,64,128,256]"],
}


@pytest.mark.parametrize("version", list(CROPS))
def test_10_starts_of_crops(make_recipe, make_data, version):
    z = load("10_crops")
    stage = make_recipe(
        "stages.crops.absent_crops=0", "stages.crops.batch_size=500", *CROPS[version]
    ).stages[0]
    middles = np.unique(z[f"{version}_middle"])
    boxes = []
    for i, middle in enumerate(middles):  # frames [first, last) around the middle
        first, last = (middle, middle + 1) if middle in (0, 3750) else (middle - 1, middle + 1)
        boxes.append(Annotation(f"r{i}", (first + 0.5) * HOP, (last + 0.5) * HOP, "0"))
    training_data = make_data(len(middles), boxes)
    assert training_data.crop_centers[0].frame.tolist() == middles.tolist()
    rng, draws = np.random.default_rng(5), 600
    counts = np.zeros((len(middles), 3751))
    for _ in range(draws):
        (batch,) = epoch_batches(stage, training_data, np.arange(len(middles)), None, rng)
        counts[batch.windows.segment, batch.windows.start] += 1
    expected = np.zeros_like(counts)
    row = np.searchsorted(middles, z[f"{version}_middle"])
    np.add.at(expected, (row, z[f"{version}_start"]), z[f"{version}_probability"])
    np.testing.assert_array_equal(counts > 0, expected > 0)
    deviation = np.abs(counts / draws - expected)
    assert (deviation <= 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-9).all()


@pytest.mark.parametrize("version", list(CROPS))
def test_10_places_of_the_real_boxes_in_their_crops(make_recipe, make_training_data, version):
    z = load("10_crops")
    changes = ["features.n_mels=1", "stages.crops.absent_crops=0", *CROPS[version]]
    recipe = make_recipe(*changes)
    present = [box for box in real_tables() if box.present]
    boxes = [rename(box, f"r{i}") for i, box in enumerate(present)]  # a recording for each box
    training_data = make_training_data(recipe, [60.0] * len(boxes), boxes, SPECIES.names)
    rng, draws, everyone = np.random.default_rng(7), 40, np.arange(len(boxes))
    offsets = []
    for _ in range(draws):
        for batch in epoch_batches(recipe.stages[0], training_data, everyone, None, rng):
            middle = training_data.crop_centers[0].frame[batch.windows.segment]
            offsets += (middle - batch.windows.start).tolist()
    place = np.searchsorted(z[f"{version}_box_offset"], offsets)
    np.testing.assert_array_equal(z[f"{version}_box_offset"][place], offsets)
    probability = z[f"{version}_box_offset_probability"]
    share = np.bincount(place, minlength=len(probability)) / len(offsets)
    limit = 5 * np.sqrt(probability * (1 - probability) / len(offsets))
    assert (np.abs(share - probability) <= limit).all()


# ---- 11: prediction


class FixedSteps(nn.Module):
    """A head with the step logits (windows, species, steps) of the file."""

    def forward(self, features):
        steps = self.steps.transpose(1, 2)
        return Logits(steps.amax(dim=1), steps, steps)


def test_11_scores_of_folds_and_their_mean(make_recipe):
    z = load("11_prediction")
    recipe = make_recipe("features.n_mels=1")
    nets = []
    for _ in range(2):
        net = small_net(recipe, np.zeros((14, 6, 16, 1), dtype=np.float32))
        net.head = FixedSteps()
        nets.append(net)
    backend = TorchBackend(nets, 3751, recipe.windows)
    model = ModelPredictor(build_feature_extractor(recipe), backend, SPECIES, "model")
    for recording in range(3):
        for fold, net in enumerate(backend.nets):
            net.head.steps = torch.from_numpy(z["step_logit"][fold, recording])
        folds = model.predict(np.ones((3751, 1), dtype=np.uint8))
        highest = np.array([fold.max(axis=0) for fold in folds])
        np.testing.assert_allclose(highest, z["fold_score"][:, recording], rtol=0, atol=1e-6)
        presence, scores = model.merge("r", [folds], [(0.0, 60.0)])
        np.testing.assert_allclose(presence, z["score"][recording], rtol=0, atol=1e-6)
        assert len(scores.value) == 118
    other = z["fold_score_if_padding_were_left_out"]
    assert (np.abs(other - z["fold_score"]) > 1e-6).sum() == 4
    plain = TorchBackend(nets, 3751, make_recipe("windows.padding=silence").windows)
    for fold, net in enumerate(plain.nets):
        net.head.steps = torch.from_numpy(z["step_logit"][fold, 0])
    without = [part.max(axis=0) for part in plain.predict(np.ones((3751, 1), dtype=np.uint8))]
    np.testing.assert_allclose(without, other[:, 0], rtol=0, atol=1e-6)


# ---- 12: the metric


WITHOUT_TIES = ("plain", "some_rows_without_truth", "one_label_a_row")


@pytest.mark.parametrize("case", [*WITHOUT_TIES, "ties_eighths", "constant", "saturated"])
def test_12_lwlrap(case):
    z = load("12_lwlrap")
    truth, scores = z[f"{case}_truth"].astype(bool), z[f"{case}_score"]
    value = lwlrap(truth, scores).value
    assert value == pytest.approx(float(z[f"{case}_lwlrap_sklearn"]), abs=1e-9)
    if case in WITHOUT_TIES:
        assert value == pytest.approx(float(z[f"{case}_lwlrap_original"]), abs=2e-7)


def test_12_lwlrap_by_hand_and_over_batches():
    z = load("12_lwlrap")
    by_hand = lwlrap(z["hand_truth"].astype(bool), z["hand_score"]).value
    assert by_hand == pytest.approx(float(z["hand_lwlrap"]), abs=1e-7)
    truth, scores = z["plain_truth"].astype(bool), z["plain_score"]
    parts = [lwlrap(truth[i : i + 32], scores[i : i + 32]).value for i in range(0, 120, 32)]
    assert np.mean(parts) == pytest.approx(float(z["plain_mean_over_batches_of_32"]), abs=1e-6)


# ---- 13: the front end


def test_13_greys_of_small_cases():
    z = np.load(shared_file("13_front_end.npz"))
    for case in ("constant", "ramp", "outlier", "two"):
        greys = to_uint8(z[f"case_{case}"].T.copy()).T
        # The original standardizes first, which changes the last digit before it cuts: one grey.
        difference = greys.astype(int) - z[f"case_{case}_uint8"]
        assert np.abs(difference).max() <= 1, case
        assert np.count_nonzero(difference) <= 1, case


@pytest.mark.parametrize("recording", ["003bec244", "006ab765f"])
def test_13_greys_and_normalization_of_a_recording(make_recipe, recording):
    z = np.load(shared_file("13_front_end.npz"))
    columns, pixels = z[f"{recording}_db_columns"].T, z[f"{recording}_uint8"].T
    least, greatest = z[f"{recording}_db_stats"][:2]
    ends = np.array([[least, greatest] * 64], dtype=np.float32)  # the range of the whole picture
    greys = to_uint8(np.concatenate([columns, ends]))[:-1]
    difference = greys.astype(int) - pixels[z["column"]]
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 1e-3
    net = small_net(make_recipe(), np.zeros((1, 6, 16, 1), dtype=np.float32))
    net.extract_features(torch.from_numpy(pixels[None, 1000:1016].copy()))
    images = net.backbone.images[0].transpose(1, 2)
    expected = z[f"{recording}_normalised_1000_1016"]
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recording", ["003bec244", "006ab765f"])
def test_13_decibels_of_our_own_front_end(make_recipe, recording):
    z = np.load(shared_file("13_front_end.npz"))
    table = pd.read_csv(shared_file("13_pictures_26.csv")).set_index("recording_id")
    decibels = own_decibels(make_recipe(), shared_file(f"audio/{recording}.flac", DATA))
    bands = decibels.mean(axis=0)
    difference = np.abs(bands - z[f"{recording}_db_band_mean"])
    assert difference[:120].mean() < 0.02
    assert abs(decibels.max() - table.loc[recording, "db_max"]) < 0.02
    frames = decibels.mean(axis=1)
    assert np.abs(frames - z[f"{recording}_db_frame_mean"]).mean() < 0.2  # with bands 120 to 127
    # The same front end after soxr's resampling to 32 kHz: ours computes at 48 kHz.
    assert abs(decibels.max() - table.loc[recording, "soxr_hq_db_max"]) < 0.02
    assert abs(decibels.min() - table.loc[recording, "soxr_hq_db_min"]) < 0.05
    assert abs(to_uint8(decibels).mean() - table.loc[recording, "soxr_hq_grey_mean"]) < 0.1


@pytest.mark.parametrize("recording", ["003bec244", "006ab765f"])
def test_13_our_resampler_gives_nearly_the_samples_of_theirs(recording):
    z = np.load(shared_file("13_front_end.npz"))
    path = shared_file(f"audio/{recording}.flac", DATA)
    (own,) = find_recordings([path]).recordings
    wave = read_or_silence(own, 0.0, 60.0, 32_000)
    for part, first in (("first", 0), ("middle", 960_000)):
        expected = z[f"{recording}_sound_{part}_2000"]
        difference = wave[first : first + 2000] - expected
        assert np.square(difference).mean() < 1e-3 * np.square(expected).mean()


def own_decibels(recipe, path):
    """What prediction and training compute of a file, before the greys: (frames, bands)."""
    (recording,) = find_recordings([path]).recordings
    rate = recipe.features.read_rate(recording.sample_rate)
    wave = read_or_silence(recording, 0.0, 60.0, rate)
    return LogMel(recipe.features, rate)(wave, recipe.features.n_frames(60.0))


# ---- 14: folds


def test_14_folds_of_the_present_boxes():
    table = pd.read_csv(shared_file("14_folds_tp.csv"))
    boxes = [box for box in real_tables() if box.present]
    names = sorted({box.recording for box in boxes})
    assert table["recording_id"].tolist() == names
    recordings = tuple(Recording(name, Path(name), 48_000, 60 * 48_000) for name in names)
    pairs = pd.Series([(box.recording, box.label) for box in boxes])
    once = pairs.map(pairs.value_counts()) == 1  # all that the original's table of folds holds
    stratified = tuple(box for box, kept in zip(boxes, once, strict=True) if kept)
    for seed in (0, 416):
        folds = assign_folds(Dataset(recordings, stratified, SPECIES), 5, seed)
        np.testing.assert_array_equal(folds, table[f"fold_seed{seed}"])
