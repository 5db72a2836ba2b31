"""bench: how fast this machine predicts.

Every precision runs the whole of :func:`antpitta.api.predict_to`: files are read, and tables are
written. The first recording includes loading and compiling the networks, so that the time until
it is done is given by itself, and the speed is measured on the other recordings.

An untrained network takes as long as a trained one, so that no model is needed. Its batch norms
get random scales: the branches of an untrained ResNet end in zeros, which would be optimised away.
"""

import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import InstanceOf

from antpitta.api.data import SILENT
from antpitta.api.prediction import predict_to
from antpitta.api.simulation import simulate_callers
from antpitta.core.arguments import Finite, PathArgument, PathArguments, as_paths, checked
from antpitta.core.config import Precision, Recipe
from antpitta.core.errors import UserError, requires_train_extra
from antpitta.core.progress import Progress
from antpitta.core.thresholds import unsupported_threshold
from antpitta.files.audio import UnreadableAudio
from antpitta.files.bundle import Bundle, read_bundle, write_bundle
from antpitta.files.recipes import read_recipe
from antpitta.files.recordings import list_files, open_file
from antpitta.files.texts import read_text
from antpitta.sound.simulation import SimulationConfig

if TYPE_CHECKING:
    import pandas as pd

MINUTE = 60.0
MAX_MINUTES = 100_000.0
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
SOUND = SimulationConfig(train=8, test=0, seconds=MINUTE, sample_rate=48_000, present=1, absent=1)
NETWORK = ("head.smoothing_frames=64", "head.class_band_limits=null", "backbone.pretrained=false")
SPECIES = 24  # of the untrained network
RANGE_FILES = 30  # recordings from which its int8 ranges are estimated


@dataclass(frozen=True)
class SpeedTest:
    """How fast each precision predicted on this machine.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a precision: ``precision``, ``speed`` (seconds of sound a second: a multiple of
        real time), ``day`` (seconds for a day of sound), ``first`` (seconds until the first
        recording was done).
    model : name of the model
    minutes : of sound, for each precision
    machine : processor and system, in a line
    """

    table: "pd.DataFrame" = field(repr=False)
    model: str
    minutes: float
    machine: str


@checked
def bench(
    audio: PathArguments = (),
    *,
    model: PathArgument | None = None,
    minutes: Finite = 60.0,
    progress: InstanceOf[Progress] = SILENT,
) -> SpeedTest:
    """Measure how fast this machine predicts, in every precision that it and the model offer.

    Parameters
    ----------
    audio
        Recordings or folders of them; simulated minutes at 48 kHz without any.
    model
        A model or a run. Without one an untrained network of the recipe ``quick`` is built, for
        which PyTorch is needed.
    minutes
        Sound for each precision. Recordings are repeated to make up for it.
    progress
        Called with messages, and with the number of recordings done.

    Returns
    -------
    SpeedTest
        Its ``table`` has a row for each precision.

    Raises
    ------
    UserError
        ``E_BENCH_MINUTES`` if ``minutes`` is not positive, ``E_NO_AUDIO`` without a
        readable recording, ``E_NEEDS_TRAIN_EXTRA`` without PyTorch and without a model.

    Examples
    --------
    >>> antpitta.bench(model="run/model").table  # doctest: +SKIP
    """
    import pandas as pd

    if not 0 < minutes <= MAX_MINUTES:
        what = f"--minutes {minutes:g} is not between 0 and {MAX_MINUTES:g}"
        raise UserError("E_BENCH_MINUTES", what, "give 1 or more")
    audio = as_paths(audio)
    with TemporaryDirectory(prefix="antpitta-bench-") as temporary:
        home = Path(temporary)
        if not audio:
            progress.message("simulating recordings")
            simulate_callers(home / "sound", SOUND)
            audio = [home / "sound" / "train"]
        seconds = _repeat([Path(root) for root in audio], minutes * MINUTE, home / "audio")
        if model is None:
            progress.message("building an untrained network of the recipe quick")
            bundle = untrained_model(read_recipe("quick", NETWORK), [home / "audio"], home)
        else:
            bundle = read_bundle(Path(model))
        rows = []
        for precision in _offered(bundle):
            first, rest = _time(bundle, precision, home, progress)
            speed = sum(seconds[1:]) / rest
            rows.append((precision, speed, 24 * 60 * MINUTE / speed, first))
    table = pd.DataFrame(rows, columns=["precision", "speed", "day", "first"])
    return SpeedTest(table, bundle.name, sum(seconds) / MINUTE, _machine())


def _repeat(audio: Sequence[Path], wanted: float, folder: Path) -> list[float]:
    """Name the recordings in a folder until their sound is long enough; the seconds of each."""
    paths, durations = [], []
    for file in list_files(audio)[0]:
        try:
            durations.append(open_file(file).duration)
        except UnreadableAudio:
            continue
        paths.append(Path(str(file.path)).resolve())
    if not paths:
        raise UserError(
            "E_NO_AUDIO",
            f"{', '.join(map(str, audio))}: no recording can be read",
            "name other recordings",
        )
    folder.mkdir()
    lengths: list[float] = []
    for path, duration in cycle(zip(paths, durations, strict=True)):
        if sum(lengths) >= wanted and len(lengths) > 1:
            break
        name = folder / f"{len(lengths):06}{path.suffix}"
        try:
            name.symlink_to(path)
        except OSError:  # Windows allows links to administrators only
            shutil.copy(path, name)
        lengths.append(duration)
    return lengths


def _offered(bundle: Bundle) -> list[Precision]:
    """The precisions that this machine and the model have a network for."""
    import openvino

    from antpitta.predict.predictor import EXPORTED_KIND, has_gpu

    parts = bundle.parts() or [bundle]
    networks = set.intersection(*(set(part.networks) for part in parts))
    if has_gpu() or not networks:  # predicted by PyTorch
        return ["float32", "bfloat16"] if has_gpu() else ["float32"]
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [
        precision
        for precision in PRECISIONS
        if EXPORTED_KIND[precision] in networks
        and (precision != "bfloat16" or "BF16" in capabilities)
    ]


def _time(
    bundle: Bundle, precision: Precision, home: Path, progress: Progress
) -> tuple[float, float]:
    """Seconds until the first recording is done, and seconds for the others and the tables."""
    start = time.perf_counter()
    first = 0.0

    def update(done: int, total: int, speed: float) -> None:
        nonlocal first
        first = first or time.perf_counter() - start
        progress.update(precision, done, total, float("nan"))

    predict_to(
        bundle.path, [home / "audio"], home / precision, precision=precision, progress=update
    )
    return first, time.perf_counter() - start - first


def untrained_model(recipe: Recipe, audio: Sequence[Path], home: Path) -> Bundle:
    """Build a model of one untrained network, in float and in int8.

    Parameters
    ----------
    recipe
        The recipe of the network.
    audio
        Recordings or folders of them; int8 ranges are estimated from the first minute of a few.
    home
        The folder in which the model is written.

    Returns
    -------
    Bundle
        The model in ``home / "model"``.

    Raises
    ------
    UserError
        ``E_NEEDS_TRAIN_EXTRA`` without PyTorch.
    """
    with requires_train_extra("bench without --model"):
        import torch

        from antpitta.files.audio import read
        from antpitta.files.own_files import save_tensors
        from antpitta.model.export import to_int8, to_openvino
        from antpitta.model.features import build_feature_extractor
        from antpitta.model.network import SedNet

    torch.manual_seed(0)
    extractor = build_feature_extractor(recipe)
    net = SedNet(recipe.backbone, recipe.head, SPECIES, bands=extractor.width).eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    weights = home / "fold0.safetensors"
    save_tensors(net.state_dict(), weights)
    config = recipe.feature_config
    recordings = [open_file(file) for file in islice(list_files(audio)[0], RANGE_FILES)]
    features = [
        extractor.extract_segment(recording, *config.segments(recording.duration)[0], read)
        for recording in recordings
    ]
    frames = config.n_frames(config.segment)
    networks: dict[str, Any] = {
        "float": to_openvino([net], extractor.width, frames),
        "int8": to_int8(to_openvino([net], extractor.width, frames, exact_edges=False), features),
    }
    bundle = Bundle(
        path=home / "model",
        name=f"untrained (recipe {recipe.name})",
        species=tuple(f"s{number}" for number in range(SPECIES)),
        recipe=recipe.model_dump(mode="json"),
        weights=(weights.name,),
        thresholds={
            f"s{number}": unsupported_threshold("few boxes", 1, 0, 0.5) for number in range(SPECIES)
        },
    )
    return write_bundle(bundle, [weights], "# Untrained\n", networks)


def _machine() -> str:
    """Processor, number of cores and system, in a line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in read_text(cpuinfo).splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
