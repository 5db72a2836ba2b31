"""The bundle: all that prediction needs, in one folder, and no pickle anywhere.

    bundle.json           species, recipe, thresholds, bands, provenance, the digest of it all
    <member>.safetensors  the weights of each fold
    network*.xml, .bin    the same for OpenVINO, all folds in one (model/export.py)
    MODEL_CARD.md         for people

An ensemble is a bundle too: its bundle.json names bundles in ``members/`` and how they blend.

A bundle as bytes, to send to machines that share no disk with this one.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from antpitta.core.errors import UserError
from antpitta.core.types import Classes
from antpitta.files.texts import write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor


LAYOUT = 2  # of bundle.json; raised when an older reader could not read it


@dataclass(frozen=True)
class Bundle:
    """What bundle.json says, and where it lies."""

    path: Path
    name: str
    species: tuple[str, ...]
    recipe: dict[str, Any] = field(default_factory=dict)  # empty for an ensemble
    weights: tuple[str, ...] = ()  # file names
    thresholds: dict[str, float] = field(default_factory=dict)
    bands: dict[str, tuple[float, float]] = field(default_factory=dict)
    members: tuple[str, ...] = ()  # folders, of an ensemble
    blend: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  # over everything above and the weights' bytes
    networks: dict[str, str] = field(default_factory=dict)  # for OpenVINO: "float", "int8" to files

    @property
    def classes(self) -> Classes:
        """The columns of its scores."""
        return Classes(self.species)

    def states(self) -> list[dict[str, "Tensor"]]:
        """The weights of every fold. Raises UserError where one is missing or damaged."""
        return [self._state(name) for name in self.weights]

    def _state(self, name: str) -> dict[str, "Tensor"]:
        from antpitta.files.runs import load_tensors

        file = self.path / name
        try:
            return load_tensors(file)[0]
        except Exception as error:
            raise UserError(
                "E_TODO",
                f"{file}: the model's weights cannot be read ({error})",
                "copy the model again",
            ) from None

    def parts(self) -> list["Bundle"]:
        """The members of an ensemble."""
        return [read_bundle(self.path / "members" / name) for name in self.members]


def write_bundle(
    bundle: Bundle,
    sources: list[Path],
    card: str,
    exported: Mapping[str, openvino.Model] | None = None,
) -> Bundle:
    """Put the bundle at its path, replacing what was there once all of it is written.

    ``sources`` are the weight files, or the member bundles of an ensemble; ``exported`` are
    the networks by their kinds. Only a bundle, or an empty folder, is ever replaced: UserError
    where anything else stands in its place.
    """
    _check_place(bundle.path)
    part = bundle.path.with_name(f".{bundle.path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    digest = hashlib.blake2b(digest_size=16)
    for source, name in zip(sources if not bundle.members else [], bundle.weights, strict=True):
        shutil.copyfile(source, part / name)
        digest.update((part / name).read_bytes())
    for source, name in zip(sources if bundle.members else [], bundle.members, strict=True):
        shutil.copytree(source, part / "members" / name)
        digest.update((source / "bundle.json").read_bytes())
    derived = ("path", "digest", "networks")
    said = {key: value for key, value in vars(bundle).items() if key not in derived}
    digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    networks = {kind: f"network-{kind}.xml" for kind in exported or {}}
    for kind, model in (exported or {}).items():
        openvino.save_model(model, part / networks[kind])
    told = {"layout": LAYOUT, **said, "digest": digest.hexdigest(), "networks": networks}
    write_json(told, part / "bundle.json")
    write_text(card, part / "MODEL_CARD.md")
    shutil.rmtree(bundle.path, ignore_errors=True)
    part.replace(bundle.path)
    return read_bundle(bundle.path)


def _check_place(path: Path) -> None:
    if not path.exists() or (path / "bundle.json").is_file():
        return
    if not path.is_dir() or any(path.iterdir()):
        raise UserError(
            "E_TODO", f"{path}: holds something that is no model", "choose another place"
        )


def read_bundle(path: Path) -> Bundle:
    """The bundle at ``path``, or in the run there.

    Raises UserError where there is none, or one that a later version wrote.
    """
    for folder in (path, path / "model"):
        file = folder / "bundle.json"
        if file.is_file():
            break
    else:
        raise UserError(
            "E_TODO",
            f"{path}: is no model (it holds no bundle.json)",
            "give RUN/model of a finished run",
        )
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said.pop("layout") > LAYOUT:
            raise UserError(
                "E_TODO", f"{file}: a later antpitta wrote this model", "update antpitta"
            )
        for key in ("species", "weights", "members"):
            said[key] = tuple(said[key])
        said["bands"] = {
            name: (low, float("inf") if high is None else high)
            for name, (low, high) in said["bands"].items()
        }
        return Bundle(path=folder, **said)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError("E_TODO", f"{file}: is damaged ({error})", "copy the model again") from None


BundleBytes = dict[str, bytes]  # by path below the bundle's folder


def bundle_to_bytes(bundle: Bundle) -> BundleBytes:
    """All files of the bundle, its members' included."""
    files = sorted(path for path in bundle.path.rglob("*") if path.is_file())
    return {path.relative_to(bundle.path).as_posix(): path.read_bytes() for path in files}


def bundle_from_bytes(parcel: BundleBytes, folder: Path) -> Bundle:
    """The bundle again, in an empty folder."""
    for name, content in parcel.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return read_bundle(folder)
