"""The bundle: everything that prediction needs, in one folder, without pickle.

    bundle.json           species, recipe, thresholds, frequency ranges, provenance, the digest
    <member>.safetensors  the weights of each fold
    network*.xml, .bin    the same for OpenVINO, all folds in one (model/export.py)
    MODEL_CARD.md         for people

An ensemble is a bundle too: its bundle.json names bundles in ``members/`` and how to blend them.
A bundle also travels as bytes, to machines that share no disk with this one.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.files.manifest import OutputKind, check_own_folder, write_manifest
from antpitta.files.texts import write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT = 2  # of bundle.json; raised when an older version could not read it
BundleBytes = dict[str, bytes]  # by path below the bundle's folder


@dataclass(frozen=True)
class Bundle:
    """The content of bundle.json, and its folder."""

    path: Path
    name: str
    species: tuple[str, ...]
    recipe: dict[str, Any] = field(default_factory=dict)  # empty for an ensemble
    weights: tuple[str, ...] = ()  # file names
    thresholds: dict[str, float] = field(default_factory=dict)  # by species
    bands: dict[str, tuple[float, float]] = field(default_factory=dict)  # by species, Hz
    members: tuple[str, ...] = ()  # folder names, of an ensemble
    blend: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  # of everything above but the name, and of the weights' bytes
    networks: dict[str, str] = field(default_factory=dict)  # for OpenVINO: "float", "int8" to files

    def __repr__(self) -> str:
        parts = f"{len(self.members)} members" if self.members else f"{len(self.weights)} folds"
        return f"Bundle({self.name!r}: {len(self.species)} species, {parts})"

    @property
    def classes(self) -> Classes:
        """The columns of its scores."""
        return Classes(self.species)

    def states(self) -> "list[dict[str, Tensor]]":
        """The weights of every fold; UserError (E_MODEL_DAMAGED) where one cannot be read."""
        return [self._state(name) for name in self.weights]

    def _state(self, name: str) -> "dict[str, Tensor]":
        from antpitta.files.runs import load_tensors

        file = self.path / name
        try:
            return load_tensors(file)[0]
        except Exception as error:
            raise UserError(
                "E_MODEL_DAMAGED",
                f"{file}: the weights cannot be read ({error})",
                "copy the model again",
            ) from None

    def parts(self) -> list["Bundle"]:
        """The members of an ensemble; none for a single model."""
        return [read_bundle(self.path / "members" / name) for name in self.members]


def write_bundle(
    bundle: Bundle,
    sources: list[Path],
    card: str,
    exported: Mapping[str, openvino.Model] | None = None,
) -> Bundle:
    """Write a bundle to its path; an older bundle there is replaced once all is written.

    Parameters
    ----------
    bundle : what to write; ``digest`` and ``networks`` are filled in
    sources : the weight files, or the member bundles of an ensemble
    card : the text of MODEL_CARD.md
    exported : networks for OpenVINO, by kind

    Returns
    -------
    The bundle, read from the disk.

    Raises
    ------
    UserError
        E_OUTPUT_EDITED where the path holds anything but an unchanged bundle of this kind.
    """
    kind: OutputKind = "ensemble" if bundle.members else "model"
    check_own_folder(bundle.path, kind)
    unfinished = bundle.path.with_name(f".{bundle.path.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    digest = hashlib.blake2b(digest_size=16)
    for source, name in zip(sources if not bundle.members else [], bundle.weights, strict=True):
        shutil.copyfile(source, unfinished / name)
        digest.update((unfinished / name).read_bytes())
    for source, name in zip(sources if bundle.members else [], bundle.members, strict=True):
        shutil.copytree(source, unfinished / "members" / name)
        digest.update(read_bundle(source).digest.encode())
    derived = ("path", "digest", "networks")
    content = {key: value for key, value in vars(bundle).items() if key not in derived}
    described = {key: value for key, value in content.items() if key != "name"}
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    networks = {precision: f"network-{precision}.xml" for precision in exported or {}}
    for precision, model in (exported or {}).items():
        _save_network(model, unfinished / networks[precision])
    content |= {"digest": digest.hexdigest(), "networks": networks}
    write_json({"layout": LAYOUT, **content}, unfinished / "bundle.json")
    write_text(card, unfinished / "MODEL_CARD.md")
    write_manifest(unfinished, kind)
    shutil.rmtree(bundle.path, ignore_errors=True)
    unfinished.replace(bundle.path)
    return read_bundle(bundle.path)


def _save_network(model: openvino.Model, path: Path) -> None:
    """Save a network under names of its own: OpenVINO counts those of the whole process."""
    for number, layer in enumerate(model.get_ordered_ops()):
        layer.set_friendly_name(f"{layer.get_type_name()}_{number}")
    openvino.save_model(model, path)
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'<net name="[^"]*"', f'<net name="{path.stem}"', text, count=1)
    path.write_text(text, encoding="utf-8")


def read_bundle(path: Path) -> Bundle:
    """The bundle in a folder, or in the run there.

    Parameters
    ----------
    path : of the bundle or of the run

    Returns
    -------
    The bundle, with its folder as ``path``.

    Raises
    ------
    UserError
        E_NO_MODEL, E_MODEL_TOO_NEW, E_MODEL_DAMAGED.
    """
    for folder in (path, path / "model"):
        file = folder / "bundle.json"
        if file.is_file():
            break
    else:
        raise UserError(
            "E_NO_MODEL",
            f"{path}: there is no model here (no bundle.json)",
            "give RUN/model of a finished run",
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("layout") > LAYOUT:
            raise UserError(
                "E_MODEL_TOO_NEW",
                f"{file}: a later version of antpitta wrote this model",
                "update antpitta",
            )
        for key in ("species", "weights", "members"):
            content[key] = tuple(content[key])
        content["bands"] = {
            name: (low, float("inf") if high is None else high)
            for name, (low, high) in content["bands"].items()
        }
        return Bundle(path=folder, **content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            "E_MODEL_DAMAGED", f"{file}: the file is damaged ({error})", "copy the model again"
        ) from None


def bundle_to_bytes(bundle: Bundle) -> BundleBytes:
    """Read all files of a bundle, those of its members included.

    Parameters
    ----------
    bundle : on this machine

    Returns
    -------
    The content of each file, by its path below the bundle's folder.
    """
    files = sorted(path for path in bundle.path.rglob("*") if path.is_file())
    return {path.relative_to(bundle.path).as_posix(): path.read_bytes() for path in files}


def bundle_from_bytes(content: BundleBytes, folder: Path) -> Bundle:
    """Write the files of :func:`bundle_to_bytes`.

    Parameters
    ----------
    content : of each file, by its path
    folder : an empty folder

    Returns
    -------
    The bundle in the folder.
    """
    for name, data in content.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return read_bundle(folder)
