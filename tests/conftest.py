"""A small simulated data set and one finished run, made once for all tests."""

import sys
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile as sf
import torch
from lightning_fabric import Fabric

import antpitta as ap
from antpitta import api
from antpitta.api import run_report
from antpitta.cli import main
from antpitta.core.config import parse_recipe
from antpitta.core.progress import Progress
from antpitta.core.thresholds import unsupported_threshold
from antpitta.core.types import Annotation, Classes, Dataset, Recording
from antpitta.files.runs import RunFolder
from antpitta.predict import pipeline
from antpitta.scores.thresholds import choose_thresholds
from antpitta.train.data import build_training_data
from antpitta.train.out_of_fold import assign_folds
from antpitta.train.stages import Run, RunCompute, RunMonitor, RunPlan, run_stages

# Property tests draw the same examples on every machine.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=50
)
hypothesis.settings.load_profile("repeatable")

SMALL = """
name = "small"
description = "tests: a tiny network on tiny pictures"
folds = 2
[features]
sample_rate = 16000
n_fft = 512
hop_length = 320
n_mels = 32
fmax = 8000.0
[windows]
frames = 128
overlap = 16
inference_overlap = 64
[backbone]
name = "test_efficientnet"
pretrained = false
[[stages]]
name = "crops"
description = "crops around boxes"
sample = "crops"
batch_size = 8
epochs = 2
lr = 1e-3
mixup = 0.1
[stages.loss]
unknown = "absent"
reduction = "mean"
class_weights = true
[[stages]]
name = "masked"
description = "a loss only where somebody listened"
init_from = "crops"
sample = "recordings"
batch_size = 4
grad_accum_steps = 2
epochs = 2
[[stages]]
name = "pseudo"
description = "pseudo labels"
init_from = "crops"
sample = "known"
batch_size = 8
epochs = 1
manifold_mixup = 0.1
[stages.pseudo]
teacher = "masked"
threshold = 0.4
cycles = 2
"""


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """No test reads or fills the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTPITTA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Simulated recordings, boxes and truth."""
    out = tmp_path_factory.mktemp("simulated") / "data"
    plan = api.SimulationConfig(
        train=12, test=4, seconds=8.0, sample_rate=16_000, present=4, absent=6, seed=3
    )
    api.simulate_callers(out, plan)
    return out


@pytest.fixture(scope="session")
def low_thresholds():
    """A context in which a model finds something, though it has learnt too little for that."""

    def choose_low(*arguments, **options):
        return {
            name: unsupported_threshold("few boxes", own.present, own.absent, 0.3)
            for name, own in choose_thresholds(*arguments, **options).items()
        }

    @contextmanager
    def lower():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_report, "choose_thresholds", choose_low)
            yield

    return lower


@pytest.fixture(scope="session")
def run(tmp_path_factory, simulated, recipe, low_thresholds) -> api.TrainResult:
    """A run trained to its end."""
    out = tmp_path_factory.mktemp("runs") / "first"
    with low_thresholds():
        return ap.train(ap.open_data(simulated), recipe=str(recipe), out=out)


@pytest.fixture
def antpitta(monkeypatch, capsys):
    """Run a command line; returns its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["antpitta", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def fill_archive(simulated):
    """A function that writes recordings of 2 s at some sites, the first of them broken."""

    def fill(home, count, sites, *, cut=False):
        wave, rate = sf.read(next((simulated / "test").iterdir()))
        places = []
        for i in range(count):
            name = f"r{i:0{len(str(count - 1))}}_20250101_{i:02}0000.wav"
            places.append(home / f"site{i % sites}" / name)
            places[i].parent.mkdir(parents=True, exist_ok=True)
            sf.write(places[i], np.roll(wave, i * 999)[: 2 * rate], rate)
        places[0].write_bytes(b"RIFF")
        if cut:  # the second, to half of it
            places[1].write_bytes(places[1].read_bytes()[: rate * 2])
        return home

    return fill


@pytest.fixture(scope="module")
def whole(run, archive, tmp_path_factory):
    """What one machine writes, undisturbed, of the module's own ``archive``."""
    out = tmp_path_factory.mktemp("whole") / "out"
    api.predict_to(run.model, [archive], out, formats=("csv", "parquet"))
    return out


@pytest.fixture(scope="session")
def differing():
    """A function that names the tables in which two folders differ.

    Where the archive is called ``there`` and not ``here``, text is compared but for that name.
    """
    text = ("presence.csv", "events.csv", "quarantine.csv")

    def differ(out, whole, *, here=None, there=None):
        if here is None:
            names = (*text, "events.parquet", "run.json")
            return [one for one in names if (out / one).read_bytes() != (whole / one).read_bytes()]
        told = {name: (whole / name).read_text().replace(str(here), there) for name in text}
        return [name for name in text if (out / name).read_text() != told[name]]

    return differ


@pytest.fixture
def opened(monkeypatch):
    """The ids of the recordings that were opened for prediction, as it happens."""
    ids = []
    plain = pipeline.open_file
    monkeypatch.setattr(pipeline, "open_file", lambda one: ids.append(one.id) or plain(one))
    return ids


@pytest.fixture(scope="module")
def s3():
    """S3 played on loopback; the environment leads there and nowhere else."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="the extra remote is not installed")
    import fsspec

    kind = fsspec.get_filesystem_class("s3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        kind.clear_instance_cache()
        yield fsspec.filesystem("s3")
        kind.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="session")
def make_training_data():
    """A function that makes recordings r0, r1, ... of made-up pixels, no sound behind them."""

    def make(recipe, durations, boxes, species=("a", "b", "c"), sites=None, seed=0):
        sites = sites or [None] * len(durations)
        rate = recipe.features.sample_rate
        recordings = tuple(
            Recording(f"r{i}", Path(f"r{i}.wav"), rate, round(seconds * rate), site=site)
            for i, (seconds, site) in enumerate(zip(durations, sites, strict=True))
        )
        rng = np.random.default_rng(seed)
        drawn = []
        for recording in recordings:
            cuts = recipe.features.segments(recording.duration)
            frames = sum(recipe.features.n_frames(stop - start) for start, stop in cuts)
            drawn.append(rng.integers(0, 256, (frames, recipe.features.n_mels), dtype=np.uint8))
        dataset = Dataset(recordings, tuple(boxes), Classes(tuple(species)))
        return build_training_data(dataset, recipe, drawn, torch.device("cpu"))

    return make


STAGED = {
    "name": "tiny",
    "description": "tests",
    "folds": 2,
    "features": {
        "sample_rate": 8000,
        "n_fft": 256,
        "hop_length": 80,
        "n_mels": 32,
        "fmin": 50.0,
        "fmax": 4000.0,
        "segment": 2.0,
    },
    "windows": {"frames": 64, "overlap": 16, "inference_overlap": 32},
    "backbone": {"name": "test_efficientnet", "pretrained": False},
    "stages": [
        {
            "name": "crops",
            "sample": "crops",
            "batch_size": 4,
            "epochs": 2,
            "lr": 1e-3,
            "mixup": 0.1,
            "crop_shifts": [8],
            "loss": {"unknown": "absent", "reduction": "mean", "class_weights": True},
        },
        {
            "name": "masked",
            "init_from": "crops",
            "batch_size": 2,
            "grad_accum_steps": 2,
            "epochs": 2,
        },
        {
            "name": "pseudo",
            "init_from": "crops",
            "sample": "known",
            "batch_size": 4,
            "epochs": 1,
            "manifold_mixup": 0.1,
            "pseudo": {"teacher": "masked", "threshold": 0.5, "cycles": 2},
        },
    ],
}
DURATIONS = [2.0, 2.0, 5.0, 2.0, 0.7, 2.0]  # a long one is several images
BOXES = [
    *(Annotation(f"r{i}", 0.1, 0.6, "abc"[i % 3], i < 4) for i in range(6)),
    *(Annotation(f"r{i}", 1.0, 1.4, "abc"[i % 3], i >= 4) for i in (0, 1, 2, 3, 5)),
    Annotation("r2", 4.2, 4.8, "b"),
]


@pytest.fixture(scope="session")
def staged_recipe():
    """Three stages, two folds, two cycles, seconds in all."""
    return parse_recipe(STAGED, "tiny")


@pytest.fixture(scope="session")
def staged_data(make_training_data, staged_recipe):
    return make_training_data(staged_recipe, DURATIONS, BOXES)


@pytest.fixture(scope="session")
def make_run(staged_recipe, staged_data):
    """A function that makes a run of those in a folder."""
    silent = Progress(lambda text: None, lambda what, done, total, loss: None)

    def make(path, progress=silent):
        folds = assign_folds(staged_data.dataset, 2, staged_recipe.seed)
        fabric = Fabric(accelerator="cpu", devices=1)
        plan = RunPlan(staged_recipe, staged_data, folds)
        return Run(plan, RunFolder(path), RunCompute(fabric), RunMonitor(progress))

    return make


@pytest.fixture(scope="session")
def messages():
    """The messages of the finished run."""
    return []


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, make_run, messages):
    """That run, trained without interruption."""
    progress = Progress(messages.append, lambda *progress: None)
    run = make_run(tmp_path_factory.mktemp("stages") / "first", progress)
    run_stages(run)
    return run


def _field(number, value):
    """One field of a protocol buffer: a whole number, or bytes (text, a message)."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value):
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _tensor(name, array):
    kind = {"float32": 1, "int64": 7}[array.dtype.name]
    dims = b"".join(_field(1, size) for size in array.shape)
    return _field(5, dims + _field(2, kind) + _field(8, name) + _field(9, array.tobytes()))


def _value(number, name, shape):
    """An input or output; text in the shape is a size left open."""
    dims = b"".join(_field(1, _field(1 if isinstance(d, int) else 2, d)) for d in shape)
    said = _field(1, 1) + _field(2, dims)
    return _field(number, _field(1, name) + _field(2, _field(1, said)))


def _node(kind, inputs, output, attribute=b""):
    return _field(
        1, b"".join(_field(1, i) for i in inputs) + _field(2, output) + _field(4, kind) + attribute
    )


@pytest.fixture(scope="session")
def write_network():
    """A function that writes an ONNX file: sound to the log power in bands of its spectrum.

    Made by hand, field by field (github.com/onnx/onnx: onnx.proto), so that no other package is
    needed. ``made.vector`` is the same in numpy. Its tensors: ``waves`` (1, pieces, 2 bands),
    ``power`` and ``vector`` (1, bands).
    """

    def write(path, samples=16_000, *, batch=1, size=None, floor=1e-6, bands=40):
        piece = 160
        angle = 2 * np.pi * np.outer(np.arange(piece), np.arange(1, bands + 1)) / piece
        waves = np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        fold = np.concatenate([np.eye(bands), np.eye(bands)]).astype(np.float32)

        def vector(wave):
            power = ((wave.reshape(-1, piece) @ waves) ** 2).mean(axis=0) @ fold
            return np.log(power + np.float32(floor))

        axes = _field(5, _field(1, "axes") + _field(8, 1) + _field(20, 7))
        keep = _field(5, _field(1, "keepdims") + _field(3, 0) + _field(20, 2))
        graph = b"".join(
            [
                _node("Reshape", ["sound", "pieces"], "cut"),
                _node("MatMul", ["cut", "angles"], "waves"),
                _node("Mul", ["waves", "waves"], "square"),
                _node("ReduceMean", ["square"], "mean", axes + keep),
                _node("MatMul", ["mean", "fold"], "power"),
                _node("Add", ["power", "floor"], "above"),
                _node("Log", ["above"], "vector"),
                _field(2, "spectrum"),
                _tensor("pieces", np.array([1, -1, piece], dtype=np.int64)),
                _tensor("angles", waves),
                _tensor("fold", fold),
                _tensor("floor", np.array([floor], dtype=np.float32)),
                _value(11, "sound", [batch, size or samples]),
                _value(12, "vector", [1, bands]),
            ]
        )
        path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(2, 13)))
        return vector

    return write


@pytest.fixture(scope="session")
def write_perch():
    """A function that writes an ONNX file with the input and outputs of Perch 2.0.

    From ``inputs`` (batch, 160000): ``embedding`` (batch, 1536), ``spatial_embedding`` (batch, 16,
    4, 1536) and ``label`` (batch, 14795), made of the log power in 24 bands. It returns the same in
    numpy, for one window.
    """

    def write(path, seed=0):
        rng, piece, bands = np.random.default_rng(seed), 100, 24
        angle = 2 * np.pi * np.outer(np.arange(piece), np.arange(2, 50, 2)) / piece
        waves = np.cos(angle).astype(np.float32)
        widen = rng.standard_normal((bands, 1536)).astype(np.float32) / 5
        classes = rng.standard_normal((bands, 14_795)).astype(np.float32) / 5

        def outputs(wave):
            pieces = wave.reshape(16, 4, 25, piece) @ waves
            level = np.log((pieces**2).mean(axis=2) + np.float32(1e-6))
            mean = level.mean(axis=(0, 1))
            return mean @ widen, level @ widen, mean @ classes

        def reduce(source, result, *axes):
            packed = b"".join(_field(8, axis) for axis in axes)
            attributes = _field(5, _field(1, "axes") + packed + _field(20, 7))
            attributes += _field(5, _field(1, "keepdims") + _field(3, 0) + _field(20, 2))
            return _node("ReduceMean", [source], result, attributes)

        graph = b"".join(
            [
                _node("Reshape", ["inputs", "pieces"], "cut"),
                _node("MatMul", ["cut", "angles"], "waves"),
                _node("Mul", ["waves", "waves"], "square"),
                reduce("square", "power", 3),
                _node("Add", ["power", "floor"], "above"),
                _node("Log", ["above"], "level"),
                _node("MatMul", ["level", "widen"], "spatial_embedding"),
                reduce("level", "mean", 1, 2),
                _node("MatMul", ["mean", "widen"], "embedding"),
                _node("MatMul", ["mean", "classes"], "label"),
                _field(2, "perch"),
                _tensor("pieces", np.array([-1, 16, 4, 25, piece], dtype=np.int64)),
                _tensor("angles", waves),
                _tensor("floor", np.array([1e-6], dtype=np.float32)),
                _tensor("widen", widen),
                _tensor("classes", classes),
                _value(11, "inputs", ["batch", 160_000]),
                _value(12, "embedding", ["batch", 1536]),
                _value(12, "spatial_embedding", ["batch", 16, 4, 1536]),
                _value(12, "label", ["batch", 14_795]),
            ]
        )
        path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(2, 13)))
        return outputs

    return write
