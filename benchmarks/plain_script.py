"""What a user would write without antpitta; it runs as a process of its own to be timed.

    python -m benchmarks.plain_script windows MODEL FOLDER     soundfile and PyTorch, by window
    python -m benchmarks.plain_script embedding NAME FOLDER    an embedding model, by stretch

It predicts file after file and keeps the highest scores of each recording. The embedding model runs
over stretches that do not overlap, one per core at a time.
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
from antpitta.files.embedding_models import find_embedding_model
from antpitta.files.known_models import KNOWN
from antpitta.model.embedding import EmbeddingModel
from antpitta.model.torch_inference import build_nets
from antpitta.sound.mel import LogMel, mel_features
from antpitta.sound.windows import window_starts

Highest = dict[str, list[float]]


def predict_windows(model: Path, folder: Path) -> Highest:
    """Predict every file with the first network of a model, window by window.

    Parameters
    ----------
    model : a bundle
    folder : sound files

    Returns
    -------
    dict
        The highest score of each species by file.
    """
    bundle = read_bundle(model)
    recipe = parse_recipe(bundle.recipe, str(model))
    config, windows = recipe.features, recipe.windows
    (net,) = build_nets(recipe, bundle.states()[:1], len(bundle.species), config.n_mels)
    log_mel, highest = LogMel(config), {}
    for path in sorted(folder.iterdir()):
        wave, rate = sf.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(wave.mean(axis=1), rate, config.sample_rate)
        features = mel_features(mono, log_mel)
        scores = []
        for start in window_starts(len(features), windows.frames, windows.inference_overlap):
            window = features[start : start + windows.frames]
            window = np.pad(window, ((0, windows.frames - len(window)), (0, 0)))
            with torch.inference_mode():
                logits = net(torch.from_numpy(window)[None]).framewise
            scores.append(torch.sigmoid(logits[0]).amax(dim=0))
        highest[path.name] = torch.stack(scores).amax(dim=0).tolist()
    return highest


def embed_files(name: str, folder: Path) -> Highest:
    """Embed every file, one stretch of 3 s after the other.

    Parameters
    ----------
    name : a known embedding model, or the path of a file
    folder : sound files

    Returns
    -------
    dict
        The highest number in each place of the embeddings by file.
    """
    known = KNOWN.get(name)
    embedding = EmbeddingConfig(model=name, output=known.vector if known else None)
    path = find_embedding_model(embedding)
    embedding = embedding.model_copy(update={"model_digest": content_key(path), "step": 3.0})
    model = EmbeddingModel(embedding, path)

    def embed(file: Path) -> tuple[str, list[float]]:
        wave, rate = sf.read(file, dtype="float32", always_2d=True)
        mono = soxr.resample(wave.mean(axis=1), rate, embedding.sample_rate)
        seconds = len(mono) / embedding.sample_rate
        embeddings = model.embed(mono, embedding.n_frames(seconds))
        return file.name, embeddings.max(axis=0).tolist()

    with ThreadPoolExecutor() as pool:
        return dict(pool.map(embed, sorted(folder.iterdir())))


if __name__ == "__main__":
    kind, model_name, folder_name = sys.argv[1:]
    highest_scores = (
        predict_windows(Path(model_name), Path(folder_name))
        if kind == "windows"
        else embed_files(model_name, Path(folder_name))
    )
    sys.stdout.write(f"{len(highest_scores)} recordings\n")
