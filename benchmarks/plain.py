"""What somebody would write without antpitta, run as a process of its own to be timed beside it.

    python -m benchmarks.plain windows MODEL FOLDER    soundfile and PyTorch, window by window
    python -m benchmarks.plain embedding NAME FOLDER   a bird network, stretch by stretch

It hears file after file and keeps each recording's highest scores. The embedding is BirdNET's or
any other that backbone = "embedding" takes, over stretches that do not overlap, a core each.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
import torch

from antpitta.core.config import parse_recipe
from antpitta.core.features import EmbeddingConfig
from antpitta.files.audio import content_key
from antpitta.files.bundle import read_bundle
from antpitta.files.embedding_models import KNOWN, find_embedding_model
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.torch_inference import build_nets
from antpitta.sound.mel import LogMel, mel_features
from antpitta.sound.windows import window_starts

Highest = dict[str, list[float]]


def hear_windows(model: Path, folder: Path) -> Highest:
    """Each recording's highest score of each species, by the first network of a model."""
    bundle = read_bundle(model)
    recipe = parse_recipe(bundle.recipe, str(model))
    front, windows = recipe.features, recipe.windows
    (net,) = build_nets(recipe, bundle.states()[:1], len(bundle.species), front.n_mels)
    mel, heard = LogMel(front), {}
    for path in sorted(folder.iterdir()):
        wave, rate = sf.read(path, dtype="float32", always_2d=True)
        image = mel_features(soxr.resample(wave.mean(axis=1), rate, front.sample_rate), mel)
        highest = []
        for start in window_starts(len(image), windows.frames, windows.inference_overlap):
            window = image[start : start + windows.frames]
            window = np.pad(window, ((0, windows.frames - len(window)), (0, 0)))
            with torch.inference_mode():
                logits = net(torch.from_numpy(window)[None]).framewise
            highest.append(torch.sigmoid(logits[0]).amax(dim=0))
        heard[path.name] = torch.stack(highest).amax(dim=0).tolist()
    return heard


def hear_embedding(name: str, folder: Path) -> Highest:
    """Each recording's highest number of each place of the network's vectors."""
    known = KNOWN.get(name)
    embedding = EmbeddingConfig(model=name, output=known.vector if known else None)
    path = find_embedding_model(embedding)
    embedding = embedding.model_copy(update={"content": content_key(path), "step": 3.0})
    embedder = EmbeddingModel(embedding, path)

    def hear(file: Path) -> tuple[str, list[float]]:
        wave, rate = sf.read(file, dtype="float32", always_2d=True)
        sound = soxr.resample(wave.mean(axis=1), rate, embedding.sample_rate)
        seconds = len(sound) / embedding.sample_rate
        vectors = embedder.draw(sound, embedding.n_frames(seconds))
        return file.name, vectors.max(axis=0).tolist()

    with ThreadPoolExecutor() as pool:
        return dict(pool.map(hear, sorted(folder.iterdir())))


if __name__ == "__main__":
    way, what, where = sys.argv[1:]
    found = (
        hear_windows(Path(what), Path(where))
        if way == "windows"
        else hear_embedding(what, Path(where))
    )
    sys.stdout.write(f"{len(found)} recordings\n")
