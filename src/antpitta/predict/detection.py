"""What predict counts as found: the threshold of each species, and the species that are written.

- By default each species has the threshold of the model. ``--threshold`` gives all species one
  number, ``--expect-precision`` each the lowest threshold that reached the precision out of fold.
- A species whose boxes do not support what was asked for has its conservative threshold, and its
  events are marked.
- A species without present boxes was not learnable: its scores mean nothing, and no option makes
  events of them. presence.csv has its column, so that all tables of a model have the same ones,
  and leaves it blank, which means unknown in every table. A submission may have no gaps: it gets 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from antpitta.core.errors import UserError, list_names
from antpitta.core.identity import species_key
from antpitta.core.thresholds import MIN_CELLS
from antpitta.files.bundle import Bundle

SUPPORTED, UNSUPPORTED, GIVEN = "supported", "unsupported", "given"  # the column support of events


@dataclass(frozen=True)
class DetectionConfig:
    """Which species are written, and which of their scores count as found.

    Parameters
    ----------
    species : the columns of presence.csv
    thresholds : of the species that can be found
    support : by species: :data:`SUPPORTED` by its boxes, :data:`UNSUPPORTED`, or :data:`GIVEN`
    not_learnable : the species without scores
    precision : what the user asked for
    top : events that are kept of a species in a recording, the best ones
    """

    species: tuple[str, ...]
    thresholds: dict[str, float]
    support: dict[str, str]
    not_learnable: tuple[str, ...] = ()
    precision: float | None = None
    top: int | None = None
    key: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Set the key: what an earlier run must have in common to be resumed."""
        key = {"thresholds": self.thresholds, "top": self.top}
        object.__setattr__(self, "key", {"detection": key})

    def notes(self) -> tuple[str, ...]:
        """What a user should know about the thresholds, a line each."""
        notes = []
        weak = [name for name in self.species if self.support.get(name) == UNSUPPORTED]
        if weak and self.precision is not None:
            notes.append(
                f"precision {self.precision:g} is not supported for {len(weak)} of "
                f"{len(self.species)} species, which have their conservative threshold: "
                f"{list_names(weak)}"
            )
        elif weak:
            notes.append(
                f"the threshold of {len(weak)} of {len(self.species)} species is unsupported, a "
                f"conservative one (MODEL_CARD.md says why): {list_names(weak)}"
            )
        if silent := [name for name in weak if name not in self.thresholds]:
            notes.append(
                f"no score of {len(silent)} species can be trusted, so they are not found unless "
                f"--threshold gives a number: {list_names(silent)}"
            )
        if blank := [name for name in self.not_learnable if name in self.species]:
            notes.append(
                f"{len(blank)} species were not learnable without a present box, so their columns "
                f"are blank and they are not found: {list_names(blank)}"
            )
        return tuple(notes)


def configure_detection(
    bundle: Bundle,
    threshold: float | None = None,
    precision: float | None = None,
    species: Sequence[str] = (),
    top: int | None = None,
) -> DetectionConfig:
    """Choose the threshold of each species.

    Parameters
    ----------
    bundle : the model
    threshold : one for all species
    precision : that each species shall reach on its boxes, out of fold
    species : names of those that are wanted, in any spelling; none means all
    top : events of a species in a recording at most

    Returns
    -------
    config : of the wanted species

    Raises
    ------
    UserError
        ``E_OPTION`` for numbers out of range, for ``threshold`` beside ``precision``, and for
        species that the model does not score or could not learn.
    """
    if threshold is not None and precision is not None:
        raise UserError(
            "E_OPTION",
            "--threshold and --expect-precision: both choose the thresholds",
            "leave one of the two options out",
        )
    for option, value in (("--threshold", threshold), ("--expect-precision", precision)):
        if value is not None and not 0 < value <= 1:
            raise UserError("E_OPTION", f"{option} {value:g}: is out of range",
                            "give a number above 0 and up to 1")  # fmt: skip
    names = _resolve_species(bundle, species) if species else bundle.species
    chosen = {
        name: _choose(bundle, name, threshold, precision)
        for name in names
        if name not in bundle.not_learnable
    }
    return DetectionConfig(
        names,
        thresholds={name: value for name, (value, _) in chosen.items() if value is not None},
        support={name: support for name, (_, support) in chosen.items()},
        not_learnable=bundle.not_learnable,
        precision=precision,
        top=top,
    )


def _choose(
    bundle: Bundle, name: str, threshold: float | None, precision: float | None
) -> tuple[float | None, str]:
    """The threshold of a species, None if it has none, and what supports it."""
    own = bundle.thresholds[name]
    if threshold is not None:
        return threshold, GIVEN
    if precision is None:
        return own.value, SUPPORTED if own.supported else UNSUPPORTED
    if point := own.at_precision(precision):
        return point.threshold, SUPPORTED
    return own.conservative, UNSUPPORTED


def _resolve_species(bundle: Bundle, wanted: Iterable[str]) -> tuple[str, ...]:
    """The wanted species in the model's spelling and order."""
    by_key = {species_key(name): name for name in bundle.species}
    chosen = set()
    for text in wanted:
        # A name may hold a comma itself.
        parts = [text] if species_key(text) in by_key else text.split(",")
        for part in filter(str.strip, parts):
            if species_key(part) not in by_key:
                raise UserError(
                    "E_OPTION",
                    f"--species {part.strip()}: the model does not score this species; it scores "
                    f"{list_names(bundle.species, 3)}",
                    "give names of the model's species, separated by commas",
                )
            chosen.add(by_key[species_key(part)])
    if not chosen:
        raise UserError("E_OPTION", "--species: names no species", "give one name at least")
    if blank := [name for name in bundle.not_learnable if name in chosen]:
        raise UserError(
            "E_OPTION",
            f"--species {blank[0]}: the model could not learn this species without a present box",
            f"leave it out, or train again with present boxes (at least {MIN_CELLS}, and as many "
            "absent ones, to support a threshold)",
        )
    return tuple(name for name in bundle.species if name in chosen)
