"""The bundle: everything that prediction needs, in one folder, without pickle.

    bundle.json           species, recipe, thresholds, frequency ranges, provenance, digests
    <member>.safetensors  the weights of each fold
    network*.xml, .bin    the same for OpenVINO, all folds in one (model/export.py)
    MODEL_CARD.md         for people

An ensemble is a bundle too: its bundle.json names bundles in ``members/``, which are no ensembles,
and how to blend them. A bundle also travels as bytes, to machines that share no disk with this one.

:func:`read_bundle` is the only reader. It checks everything (files/bundle_schema.py) before a
weight is loaded or a network is opened.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from antpitta.core.errors import UserError
from antpitta.core.thresholds import SpeciesThreshold
from antpitta.core.types import Classes
from antpitta.files.bundle_schema import (
    CARD,
    LAYOUT,
    MANIFEST,
    MEMBERS,
    BundleContent,
    check_files,
    check_recipe,
    content_digest,
    damaged,
    file_records,
    network_files,
    read_content,
)
from antpitta.files.manifest import OutputKind, check_own_folder, write_manifest
from antpitta.files.texts import explain_write_errors, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

BundleBytes = dict[str, bytes]  # by path below the bundle's folder


@dataclass(frozen=True)
class Bundle:
    """The content of bundle.json, and its folder."""

    path: Path
    name: str
    species: tuple[str, ...]
    recipe: dict[str, Any] = field(default_factory=dict)  # empty for an ensemble
    weights: tuple[str, ...] = ()  # file names
    thresholds: dict[str, SpeciesThreshold] = field(default_factory=dict)  # of every species
    bands: dict[str, tuple[float, float]] = field(default_factory=dict)  # by species, Hz
    members: tuple[str, ...] = ()  # folder names, of an ensemble
    blend: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    digest: str = ""  # of everything above but the name, and of the weights' bytes
    networks: dict[str, str] = field(default_factory=dict)  # for OpenVINO: "float", "int8" to files
    files: tuple[str, ...] = ()  # checked files besides bundle.json, by path below the folder
    _parts: tuple["Bundle", ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        parts = f"{len(self.members)} members" if self.members else f"{len(self.weights)} folds"
        return f"Bundle({self.name!r}: {len(self.species)} species, {parts})"

    @property
    def classes(self) -> Classes:
        """The columns of its scores."""
        return Classes(self.species)

    @property
    def not_learnable(self) -> tuple[str, ...]:
        """The species without present boxes, whose scores mean nothing."""
        return tuple(name for name in self.species if not self.thresholds[name].learnable)

    def states(self) -> "list[dict[str, Tensor]]":
        """The weights of every fold; UserError (E_MODEL_DAMAGED) where one cannot be used."""
        return [self._state(name) for name in self.weights]

    def _state(self, name: str) -> "dict[str, Tensor]":
        from antpitta.files.own_files import load_tensors

        file = self.path / name
        try:
            state = load_tensors(file)[0]
        except Exception as error:  # the package has no common class of errors
            raise damaged(file, f"the weights cannot be read: {error}") from None
        for key, tensor in state.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise damaged(file, f"the weights {key[:80]} are not all numbers")
        return state

    def parts(self) -> list["Bundle"]:
        """The members of an ensemble; none for a single model."""
        return list(self._parts)


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
        E_OUTPUT_EDITED where the path holds anything but an unchanged bundle of this kind,
        E_OUTPUT_NOT_WRITABLE.
    """
    kind: OutputKind = "ensemble" if bundle.members else "model"
    check_own_folder(bundle.path, kind)
    unfinished = bundle.path.with_name(f".{bundle.path.name}.part")
    try:
        with explain_write_errors(bundle.path):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            _write_parts(bundle, sources, exported or {}, unfinished)
            write_text(card, unfinished / CARD)
            write_manifest(unfinished, kind)
            read_bundle(unfinished)
            shutil.rmtree(bundle.path, ignore_errors=True)
            unfinished.replace(bundle.path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return read_bundle(bundle.path)


def _write_parts(
    bundle: Bundle, sources: list[Path], exported: Mapping[str, openvino.Model], folder: Path
) -> None:
    """Write weights or members, networks and bundle.json."""
    for source, name in zip(sources if not bundle.members else [], bundle.weights, strict=True):
        shutil.copyfile(source, folder / name)
    for source, name in zip(sources if bundle.members else [], bundle.members, strict=True):
        bundle_from_bytes(bundle_to_bytes(read_bundle(source)), folder / MEMBERS / name)
    networks = {precision: network_files(precision)[0] for precision in exported}
    for precision, model in exported.items():
        _save_network(model, folder / networks[precision])
    _write_content(bundle, networks, folder)


def _write_content(bundle: Bundle, networks: dict[str, str], folder: Path) -> None:
    """Write bundle.json beside the files that it describes."""
    derived = ("path", "digest", "networks", "files", "_parts")
    content = {key: value for key, value in vars(bundle).items() if key not in derived}
    content |= {"layout": LAYOUT, "blend": bundle.blend or None, "networks": networks}
    content["thresholds"] = {name: own.model_dump() for name, own in bundle.thresholds.items()}
    names = [*bundle.weights, *(name for kind in networks for name in network_files(kind))]
    names += [f"{MEMBERS}/{name}/{MANIFEST}" for name in bundle.members]
    content["files"] = file_records(folder, names)
    write_json(content, folder / MANIFEST)
    plain = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    members = [read_bundle(folder / MEMBERS / name).digest for name in bundle.members]
    digest = content_digest(plain, members or [plain["files"][n]["sha256"] for n in bundle.weights])
    write_json({**plain, "digest": digest}, folder / MANIFEST)


def _save_network(model: openvino.Model, path: Path) -> None:
    """Save a network under names of its own: OpenVINO counts those of the whole process."""
    for number, layer in enumerate(model.get_ordered_ops()):
        layer.set_friendly_name(f"{layer.get_type_name()}_{number}")
    try:
        openvino.save_model(model, path)
    except RuntimeError as error:
        raise OSError(f"OpenVINO cannot write {path.name}") from error
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
        E_NO_MODEL, E_MODEL_TOO_NEW, E_MODEL_TOO_OLD, E_MODEL_DAMAGED.
    """
    for folder in (path, path / "model"):
        if _has_manifest(folder):
            return _read_folder(folder, nested=False)
    raise UserError(
        "E_NO_MODEL",
        f"{path}: there is no model here (no {MANIFEST})",
        "give RUN/model of a finished run",
    )


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # such as a name that is too long
        return False


def _read_folder(folder: Path, *, nested: bool) -> Bundle:
    """Check and read the bundle in a folder; a nested one is a member of an ensemble."""
    file = folder / MANIFEST
    content, plain = read_content(file)
    if content.members and nested:
        raise damaged(file, "a member of an ensemble is an ensemble")
    if not content.members:
        check_recipe(content, file)
    check_files(folder, content.files)
    members = [_read_folder(folder / MEMBERS / name, nested=True) for name in content.members]
    for member in members:
        if member.species != content.species:
            raise damaged(member.path / MANIFEST, "the member has other species than the ensemble")
    shares = [content.files[name].sha256 for name in content.weights]
    if content_digest(plain, [m.digest for m in members] or shares) != content.digest:
        raise damaged(file, "the digest is not that of the content")
    return _to_bundle(folder, content, plain, tuple(members))


def _to_bundle(
    folder: Path, content: BundleContent, plain: dict[str, Any], parts: tuple[Bundle, ...]
) -> Bundle:
    bands = {
        name: (low, float("inf") if high is None else high)
        for name, (low, high) in content.bands.items()
    }
    return Bundle(
        path=folder,
        name=content.name,
        species=content.species,
        recipe=dict(content.recipe),
        weights=content.weights,
        thresholds=content.thresholds,
        bands=bands,
        members=content.members,
        blend=plain["blend"] or {},
        provenance=dict(content.provenance),
        digest=content.digest,
        networks={str(kind): name for kind, name in content.networks.items()},
        files=content.file_names,
        _parts=parts,
    )


def bundle_to_bytes(bundle: Bundle) -> BundleBytes:
    """Read all files of a bundle that belong to it, those of its members included.

    Parameters
    ----------
    bundle : on this machine

    Returns
    -------
    The content of each file, by its path below the bundle's folder.
    """
    content = {name: (bundle.path / name).read_bytes() for name in (MANIFEST, *bundle.files)}
    if (card := bundle.path / CARD).is_file() and not card.is_symlink():
        content[CARD] = card.read_bytes()
    for name, part in zip(bundle.members, bundle.parts(), strict=True):
        files = bundle_to_bytes(part)
        content |= {f"{MEMBERS}/{name}/{file}": data for file, data in files.items()}
    return content


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
