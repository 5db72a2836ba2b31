"""The loader of a model's bundle: bundle.json, the weights, the recipe and the blend in it.

The first byte chooses the file that the input stands for; the others are those of a small valid
model or ensemble. From 192 on, the rest is no file but edits of the valid bundle.json, by which
values get deeper into the reader than bytes do. Below 128 and in such edits, sizes and digests are
made anew, so that the input is not refused for being changed. Networks are not built: their time is
not that of the reader.
"""

import json
import shutil
import sys
import tempfile
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris
import numpy as np
import torch

from fuzz.harness import fuzz, instrumented

with instrumented():
    from antpitta.files.bundle import Bundle, read_bundle, write_bundle
    from antpitta.files.bundle_schema import content_digest, file_records
    from antpitta.files.recipes import read_recipe
    from antpitta.files.runs import save_tensors
    from antpitta.predict import predictor
    from antpitta.scores.ensemble.blend import Blend

_EDITS = 192
_VALUES = (
    *(None, True, 0, 1, -1, 1.5, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "a"),
    *([], {}, [[]], [1], ["a"], {"a": 1}, "..", "/", "a.safetensors", "m", "boxes", "embedding"),
    *(
        "rank",
        "fit",
        "quick",
        "float",
        "int8",
        "x" * 300,
        "\x00",
        "\u00e9",
        "e\u0301",
        "hf-hub:a/b",
    ),
)
SPECIES = ("s1", "Coqui, \u00e9")
PLACES = ("model/bundle.json", "model/a.safetensors", "ensemble/bundle.json")
HOME = Path(tempfile.mkdtemp())
RECIPE = (
    "backbone.pretrained=false",
    "backbone.name=test_efficientnet",
    "head.background_subtraction=0.5",
    "head.smoothing_frames=1",
    "head.class_band_limits=null",
)


def _write_valid() -> None:
    """A model with one file of weights, and an ensemble of it."""
    (HOME / "made").mkdir()
    weights = HOME / "made" / "a.safetensors"
    save_tensors({"w": torch.zeros(2, 3)}, weights, {"epoch": "1"})
    recipe = read_recipe("quick", RECIPE).model_dump(mode="json")
    thresholds, bands = {"s1": 0.5, SPECIES[1]: 0.25}, {"s1": (100.0, float("inf"))}
    model = Bundle(HOME / "model", "m", SPECIES, recipe, ("a.safetensors",), thresholds, bands)
    write_bundle(model, [weights], "card")
    ones = np.ones((1, len(SPECIES)))
    blend = Blend("mean", ("m",), SPECIES, ones, np.ones(1), np.zeros(1), ones > 0)
    ensemble = Bundle(
        HOME / "ensemble", "e", SPECIES, thresholds=thresholds, members=("m",),
        blend=blend.to_json(),
    )  # fmt: skip
    write_bundle(ensemble, [HOME / "model"], "card")


_write_valid()
predictor.open_backend = lambda *_: None  # type: ignore[assignment]
predictor._build_extractor = lambda _: SimpleNamespace(width=8)  # type: ignore[assignment]


def run(data: bytes, folder: Path) -> None:
    """One input: a byte that chooses the file, then the bytes of the file."""
    first = (data or b"\0")[0]
    place = PLACES[first % len(PLACES)]
    bundle = folder / place.partition("/")[0]
    shutil.copytree(HOME / bundle.name, bundle)
    if first >= _EDITS:
        _edit(bundle / "bundle.json", atheris.FuzzedDataProvider(data[1:]))
    else:
        (folder / place).write_bytes(data[1:])
    if first < 128 or first >= _EDITS:
        with suppress(Exception):
            _renew_digests(bundle)
    opened = read_bundle(bundle)
    repr(opened)
    for part in opened.parts() or [opened]:
        part.states()
    predictor.Predictor(opened)


def _edit(file: Path, choices: atheris.FuzzedDataProvider) -> None:
    """Replace, remove or repeat a few values somewhere in the file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    for _ in range(choices.ConsumeIntInRange(1, 3)):
        parent: Any = content
        while isinstance(parent, dict | list) and parent:
            keys: list[Any] = list(parent) if isinstance(parent, dict) else [*range(len(parent))]
            key = keys[choices.ConsumeIntInRange(0, len(keys) - 1)]
            if isinstance(parent[key], dict | list) and parent[key] and choices.ConsumeBool():
                parent = parent[key]
                continue
            action = choices.ConsumeIntInRange(0, len(_VALUES) + 3)
            if action == 0:
                del parent[key]
            elif action == 1:
                parent[key] = [parent[key], parent[key]]
            elif action == 2:
                parent[key] = choices.ConsumeInt(9)
            elif action == 3:
                parent[key] = choices.ConsumeFloat()
            else:
                parent[key] = deepcopy(_VALUES[action - 4])
            break
    file.write_text(json.dumps(content), encoding="utf-8")


def _renew_digests(folder: Path) -> None:
    file = folder / "bundle.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    names = [*content["weights"], *(f"members/{name}/bundle.json" for name in content["members"])]
    content["files"] = file_records(folder, names)
    members = [
        json.loads((folder / "members" / name / "bundle.json").read_text())["digest"]
        for name in content["members"]
    ]
    shares = [content["files"][name]["sha256"] for name in content["weights"]]
    content["digest"] = content_digest(content, members or shares)
    file.write_text(json.dumps(content), encoding="utf-8")


SEEDS = [
    *(bytes([i]) + (HOME / place).read_bytes() for i, place in enumerate(PLACES)),
    bytes([129]) + (HOME / PLACES[0]).read_bytes(),
    *(bytes([192 + i]) + bytes(range(0, 120, 3)) for i in range(len(PLACES))),
]
WORDS = (
    *(f'"{key}"'.encode() for key in json.loads((HOME / PLACES[0]).read_text())),
    *(f'"{key}"'.encode() for key in json.loads((HOME / PLACES[2]).read_text())["blend"]),
    *(b'"../a"', b'"/etc/passwd"', b'"hf-hub:a/b"', b'"a.safetensors"', b'"m"', b'"boxes"'),
    *(
        b"null",
        b"true",
        b"[]",
        b"{}",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"99999999999999999999",
    ),
    *(b"[[[[[[[[", b'{"a":' * 8, b'"\\ud800"', b'"F32"', b'"BOOL"', b'"shape"', b'"dtype"'),
    *(b'"data_offsets"', b'"__metadata__"', b"\0\0\0\0\0\0\0\x80", b'"s1"', b'"rank"', b'"fit"'),
)

if __name__ == "__main__":
    fuzz("bundle", run, SEEDS, WORDS)
    sys.exit()
