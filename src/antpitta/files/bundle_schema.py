"""What a bundle must be before anything of it is used: anybody may have made it.

- ``bundle.json`` is read up to a size and a depth, and every value of it has a type and bounds.
- Every file that it names lies in the bundle's own folder under a plain name of a kind that
  antpitta writes. It is a regular file, no link, pipe or device, and has the size and the SHA-256
  that ``bundle.json`` gives.
- The digest of the bundle is that of its content, so that one that was edited is refused.

A digest shows damage and edits. It does not show who made a bundle, so whatever reads weights and
networks checks their shapes and values as well (model/inference.py, :meth:`Bundle.states`).
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from antpitta.core.config import BlendMethod, Recipe, parse_recipe, removed_settings
from antpitta.core.errors import UserError, machine_failure
from antpitta.core.features import Share
from antpitta.core.thresholds import SpeciesThreshold

LAYOUT = 4  # of bundle.json: any other one is refused
MANIFEST = "bundle.json"
CARD = "MODEL_CARD.md"
MEMBERS = "members"  # the folder of an ensemble's members
MAX_JSON = 256 << 20  # bytes: the ranks of an ensemble for thousands of species need this much
MAX_GRAPH = 256 << 20  # bytes of the .xml file of a network
MAX_SPECIES = 100_000
MAX_NAME = 100_000  # characters
MAX_WEIGHTS = 1_000  # files, one for each fold
MAX_MEMBERS = 1_000
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
_RENEW = "copy the model again, or train it again"

NetworkKind = Literal["float", "int8"]
NonNegative = Annotated[float, Field(ge=0)]
Slope = Annotated[float, Field(ge=-1e100, le=1e100)]  # no product of two of them overflows


def network_files(kind: str) -> tuple[str, str]:
    """The names of the two files of an exported network.

    Parameters
    ----------
    kind : ``float`` or ``int8``

    Returns
    -------
    Those of its graph and of its weights.
    """
    return f"network-{kind}.xml", f"network-{kind}.bin"


def _check_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len({value.casefold() for value in values}) != len(values):
        raise ValueError("two of the names are equal")
    return values


def _check_species(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a species is named twice")
    if any(not value.strip() for value in values):
        raise ValueError("a species has no name")
    return values


def _check_folder_name(value: str) -> str:
    if value in (".", "..") or any(c in value for c in "/\\\0") or value[1:2] == ":":
        raise ValueError("is no name of a folder")
    return value


def _check_no_device(value: str) -> str:
    if _DEVICES.fullmatch(value):
        raise ValueError("is a device on Windows")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
WeightName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,200}\.safetensors$"),
    AfterValidator(_check_no_device),
]
MemberName = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_folder_name)
]


class _Strict(BaseModel):
    """No conversions, no unknown keys, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FileRecord(_Strict):
    """Size and SHA-256 of a file of the bundle."""

    bytes: Annotated[int, Field(ge=1, lt=1 << 40)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class RankContent(_Strict):
    """A member's reference scores, and their ranks, of each species."""

    scores: tuple[tuple[Share, ...], ...]
    ranks: tuple[tuple[Share, ...], ...]


class BlendContent(_Strict):
    """How an ensemble combines its members, as ``Blend.to_json`` writes it."""

    method: BlendMethod
    members: tuple[MemberName, ...]
    classes: tuple[Name, ...]
    weights: tuple[tuple[Share, ...], ...]
    slopes: tuple[Slope, ...]
    offsets: tuple[Slope, ...]
    scored: tuple[tuple[bool, ...], ...]
    ranks: tuple[RankContent, ...]

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        members, classes = len(self.members), len(self.classes)
        for key in ("weights", "scored"):
            rows = getattr(self, key)
            if len(rows) != members or any(len(row) != classes for row in rows):
                raise ValueError(f"{key} are not {members} members x {classes} classes")
        if len(self.slopes) != members or len(self.offsets) != members:
            raise ValueError(f"slopes and offsets are not those of {members} members")
        if len(self.ranks) != (members if self.method == "rank" else 0):
            raise ValueError(f"ranks of {len(self.ranks)} members do not fit {self.method}")
        for rank in self.ranks:
            if not len(rank.scores) == len(rank.ranks) == classes:
                raise ValueError(f"ranks are not those of {classes} classes")
            for scores, ranks in zip(rank.scores, rank.ranks, strict=True):
                if not 0 < len(scores) == len(ranks) or list(scores) != sorted(set(scores)):
                    raise ValueError("the reference scores of a class do not rise")
                if list(ranks) != sorted(ranks):
                    raise ValueError("the ranks of a class do not rise")
        return self


class BundleContent(_Strict):
    """The content of ``bundle.json``."""

    layout: Literal[4]
    name: Annotated[str, StringConstraints(max_length=MAX_NAME)]
    species: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_SPECIES)]
    recipe: dict[str, JsonValue]  # empty for an ensemble
    weights: Annotated[tuple[WeightName, ...], Field(max_length=MAX_WEIGHTS)]
    thresholds: dict[str, SpeciesThreshold]  # of every species
    bands: dict[str, tuple[NonNegative, NonNegative | None]]  # by species, Hz; None: no upper edge
    members: Annotated[tuple[MemberName, ...], Field(max_length=MAX_MEMBERS)]
    blend: BlendContent | None
    provenance: dict[str, JsonValue]
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    networks: dict[NetworkKind, str]  # exported networks: the files of their graphs
    files: dict[str, FileRecord]  # all files but bundle.json and the card

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        _check_species(self.species)
        _check_distinct(self.weights)
        if bool(self.members) == bool(self.weights):
            raise ValueError("a model has weights or members")
        if bool(self.members) == (self.blend is None) or bool(self.members) == bool(self.recipe):
            raise ValueError("an ensemble has members and a blend, any other model a recipe")
        if self.members and self.networks:
            raise ValueError("an ensemble has no networks of its own")
        for kind, file in self.networks.items():
            if file != network_files(kind)[0]:
                raise ValueError(f"networks.{kind}: {file!r} is not {network_files(kind)[0]}")
        if self.blend is not None and self.blend.members != self.members:
            raise ValueError("the blend has other members")
        if self.blend is not None and self.blend.classes != self.species:
            raise ValueError("the blend has other species")
        if set(self.files) != set(self.file_names):
            raise ValueError("files does not list the files of the model")
        return self

    @model_validator(mode="after")
    def _species_fit(self) -> Self:
        for key, table in (("thresholds", self.thresholds), ("bands", self.bands)):
            if unknown := set(table) - set(self.species):
                raise ValueError(f"{key} of {min(unknown)!r}, which is no species of the model")
        if missing := set(self.species) - set(self.thresholds):
            raise ValueError(f"thresholds lack {min(missing)!r}")
        for name, (low, high) in self.bands.items():
            if high is not None and high < low:
                raise ValueError(f"bands of {name!r}: {low} is above {high}")
        return self

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files that a bundle of this content has, besides bundle.json and the card."""
        networks = (name for kind in self.networks for name in network_files(kind))
        return (*self.weights, *networks, *(f"{MEMBERS}/{m}/{MANIFEST}" for m in self.members))


def read_content(file: Path) -> tuple[BundleContent, dict[str, Any]]:
    """Read and check ``bundle.json``; the files that it names are not looked at.

    Parameters
    ----------
    file : a bundle's ``bundle.json``

    Returns
    -------
    The content, and the same as plain values.

    Raises
    ------
    UserError
        E_MODEL_DAMAGED, E_MODEL_TOO_OLD, E_MODEL_TOO_NEW.
    """
    size = regular_size(file)
    if size > MAX_JSON:
        raise damaged(file, f"has {size} bytes, and at most {MAX_JSON} are possible")
    try:
        raw = file.read_bytes()
        plain = from_json(raw, allow_inf_nan=False)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise machine_failure(error, file) or damaged(file, _short(error)) from None
    layout = plain.get("layout") if isinstance(plain, dict) else None
    if type(layout) is not int:
        raise damaged(file, "is no description of a model")
    if layout > LAYOUT:
        raise UserError(
            "E_MODEL_TOO_NEW",
            f"{file}: a later version of antpitta wrote this model",
            "update antpitta",
        )
    if layout < LAYOUT:
        raise UserError(
            "E_MODEL_TOO_OLD",
            f"{file}: an older version of antpitta wrote this model, without what its thresholds "
            "rest on",
            "train the model again",
        )
    try:
        return BundleContent.model_validate_json(raw), plain
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))[:200]
        reason = first["msg"].removeprefix("Value error, ")[:300]
        raise damaged(file, f"{key}: {reason}" if key else reason) from None


def check_recipe(content: BundleContent, file: Path) -> Recipe:
    """Check the recipe of a model that is no ensemble.

    Parameters
    ----------
    content : of the bundle
    file : its ``bundle.json``, for messages

    Returns
    -------
    The recipe.

    Raises
    ------
    UserError
        E_MODEL_DAMAGED for a recipe that no training could have written, E_MODEL_TOO_OLD for one
        with settings that were removed.
    """
    if removed := removed_settings(content.recipe):
        raise UserError(
            "E_MODEL_TOO_OLD",
            f"{file}: an older version of antpitta wrote this model, with settings that were "
            f"removed since: {removed}",
            "train the model again",
        )
    try:
        recipe = parse_recipe(dict(content.recipe), "recipe")
    except UserError as error:
        raise damaged(file, error.what[:500]) from None
    species, head, embedding = len(content.species), recipe.head, recipe.embedding
    for key in ("background_subtraction", "smoothing_frames", "class_band_limits"):
        value = getattr(head, key)
        if isinstance(value, str):
            raise damaged(file, f'recipe: head.{key} is "{value}", which training replaces')
        if isinstance(value, tuple) and len(value) != species:
            raise damaged(file, f"recipe: head.{key} is not that of {species} species")
    if embedding is not None and embedding.model_digest is None:
        raise damaged(file, "recipe: embedding.model_digest is missing")
    class_map = None if embedding is None else embedding.class_map
    if class_map is not None and len(class_map) != species:
        raise damaged(file, f"recipe: embedding.class_map is not that of {species} species")
    return recipe


def content_digest(plain: Mapping[str, Any], parts: Iterable[str]) -> str:
    """The digest of a bundle: of its description but the name, of its weights and members.

    Parameters
    ----------
    plain : the content of ``bundle.json``
    parts : the SHA-256 of each file of weights, or the digest of each member

    Returns
    -------
    32 hexadecimal digits; exported networks follow from the weights and do not count.
    """
    derived = ("layout", "name", "digest", "networks", "files")
    described = {key: value for key, value in plain.items() if key not in derived}
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([described, list(parts)], sort_keys=True).encode())
    return digest.hexdigest()


def file_records(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files that were just written, as ``bundle.json`` has them.

    Parameters
    ----------
    folder : of the bundle
    names : paths below it

    Returns
    -------
    By name.
    """
    names = list(names)
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in names
    }


def check_files(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Check that files are regular ones with the size and the digest that are expected.

    Parameters
    ----------
    folder : of the bundle
    files : by path below it

    Raises
    ------
    UserError
        E_MODEL_DAMAGED.
    """
    for name, record in files.items():
        path = folder / name
        for parent in list(path.parents)[: name.count("/")]:
            if not stat.S_ISDIR(_lstat(parent).st_mode):
                raise damaged(parent, "is no folder, or a link")
        size = regular_size(path)
        if size != record.bytes:
            raise damaged(path, f"has {size} bytes, not {record.bytes}")
    largest_first = sorted(files, key=lambda name: -files[name].bytes)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # hashing leaves the interpreter free
        digests = pool.map(lambda name: _sha256(folder / name), largest_first)
        for name, digest in zip(largest_first, digests, strict=True):
            if digest != files[name].sha256:
                raise damaged(folder / name, "the content is not that which was written")
    for name in files:
        if name.endswith(".xml"):
            _check_graph(folder / name)


def _check_graph(path: Path) -> None:
    """Refuse a graph in another format than antpitta writes, or with entities."""
    if regular_size(path) > MAX_GRAPH:
        raise damaged(path, f"has more than {MAX_GRAPH} bytes")
    graph = path.read_bytes()
    if b"<!" in graph or not graph.startswith(b"<?xml"):
        raise damaged(path, "is no network that antpitta wrote")


def regular_size(path: Path) -> int:
    """The size of a regular file of a bundle.

    Parameters
    ----------
    path : of the file; a link is not followed

    Returns
    -------
    Its size, in bytes.

    Raises
    ------
    UserError
        E_MODEL_DAMAGED for a folder, a link, a pipe or a device, or where nothing is.
    """
    status = _lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise damaged(path, "is a folder, a link, a pipe or a device")
    return status.st_size


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file of a bundle that cannot be used.

    Parameters
    ----------
    path : of the file
    reason : in a few words

    Returns
    -------
    E_MODEL_DAMAGED.
    """
    return UserError(
        "E_MODEL_DAMAGED", f"{path}: the model is damaged or was changed ({reason})", _RENEW
    )


def _lstat(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except (OSError, ValueError) as error:
        raise machine_failure(error, path) or damaged(path, _short(error)) from None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise machine_failure(error, path) or damaged(path, _short(error)) from None


def _short(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join((reason or type(error).__name__).split())[:200]
