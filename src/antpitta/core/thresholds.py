"""The threshold of a species, how it was chosen, and what it rests on.

A threshold that means nothing cannot be made. These are refused: one below ``LOWEST``, and one that
is called a species' own without enough boxes, without an interval, or without a box on each side.
"""

from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from antpitta.core.features import Share

MIN_CELLS = 10  # present boxes, and absent ones, that a threshold of a species' own needs
LOWEST = 1e-6  # of a threshold: tables of events give scores with six decimals

# Of species, in every message about them.
NOT_LEARNABLE = f"not learnable without present boxes ({MIN_CELLS} support a threshold)"

ThresholdValue = Annotated[float, Field(ge=LOWEST, le=1)]
Origin = Literal["own", "shared", "none"]
Reason = Literal[
    "", "few boxes", "one recording", "no better than chance", "imprecise", "no present"
]
REASONS: dict[Reason, str] = {  # why a species has no threshold of its own
    "few boxes": f"fewer than {MIN_CELLS} present or {MIN_CELLS} absent boxes",
    "one recording": "present or absent boxes in one recording only",
    "no better than chance": "an AUC that may be 0.5 or less",
    "imprecise": "no threshold with a precision of 0.9",
    "no present": "no present box",
}


class Estimate(NamedTuple):
    """A precision or a recall with its 95 % interval."""

    value: Share
    low: Share
    high: Share


class OperatingPoint(NamedTuple):
    """What a threshold gives on the species' labelled boxes."""

    threshold: ThresholdValue
    precision: Share
    recall: Share


class SpeciesThreshold(BaseModel):
    """The threshold of a species; a score at or above it counts as present.

    Attributes
    ----------
    value : None where no score is high enough to be trusted, or the species was not learnable
    origin : ``own`` is chosen on the species' boxes; ``shared`` is the conservative one of
        all species, raised to ``conservative``; ``none`` belongs to a species without present boxes
    reason : why it is not the species' own, a key of :data:`REASONS`; empty if it is
    present, absent : numbers of labelled boxes
    interval : 95 % interval of ``value``, by resampling recordings
    precision, recall : at ``value``, on the species' boxes out of fold
    conservative : used where what was asked for is not supported; None as for ``value``
    points : of rising threshold, each more precise than all before it
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    value: ThresholdValue | None
    origin: Origin
    reason: Reason = ""
    present: Annotated[int, Field(ge=0)] = 0
    absent: Annotated[int, Field(ge=0)] = 0
    interval: tuple[Share, Share] | None = None
    precision: Estimate | None = None
    recall: Estimate | None = None
    conservative: ThresholdValue | None = None
    points: tuple[OperatingPoint, ...] = ()

    @property
    def supported(self) -> bool:
        """Whether the species' own boxes support the threshold."""
        return self.origin == "own"

    @property
    def learnable(self) -> bool:
        """Whether the species has present boxes, without which nothing can be learnt."""
        return self.origin != "none"

    def at_precision(self, precision: float) -> OperatingPoint | None:
        """The lowest threshold that reaches a precision.

        Parameters
        ----------
        precision : on the species' boxes, out of fold

        Returns
        -------
        point : None if it is not reached, or the boxes do not support a threshold
        """
        return next((point for point in self.points if point.precision >= precision - 1e-12), None)

    @model_validator(mode="after")
    def _origin_fits(self) -> Self:
        if self.supported != (self.reason == "") or (self.reason == "no present") == self.learnable:
            raise ValueError(f"a threshold of origin {self.origin} has the reason {self.reason!r}")
        if not self.learnable and (self.value, self.conservative) != (None, None):
            raise ValueError("a species without present boxes has a threshold")
        if self.supported:
            if min(self.present, self.absent) < MIN_CELLS:
                raise ValueError(f"{self.present} present and {self.absent} absent boxes are few")
            if None in (self.value, self.interval, self.precision, self.recall):
                raise ValueError("a threshold of its own has no value or no interval")
        return self

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        for low, high in ((0.0, 1.0) if self.interval is None else self.interval,):
            if low > high:
                raise ValueError(f"the interval begins at {low} and ends at {high}")
        for estimate in (self.precision, self.recall):
            if estimate is not None and (estimate.value <= 0 or estimate.low > estimate.high):
                raise ValueError(f"{estimate} is no precision or recall of a threshold")
        for lower, higher in zip(self.points, self.points[1:], strict=False):
            if not (lower.threshold < higher.threshold and lower.precision < higher.precision):
                raise ValueError("the operating points do not rise")
        if self.points and self.reason not in ("", "imprecise"):
            raise ValueError(f"operating points of a threshold with the reason {self.reason!r}")
        return self


def unsupported_threshold(
    reason: Reason,
    present: int,
    absent: int,
    conservative: float | None,
    points: tuple[OperatingPoint, ...] = (),
) -> SpeciesThreshold:
    """The threshold of a species whose own boxes support none.

    Parameters
    ----------
    reason : why, a key of :data:`REASONS`
    present, absent : numbers of labelled boxes
    conservative : the shared threshold, raised for this species; None if no score can be trusted
    points : where the boxes are enough, and no threshold is precise enough

    Returns
    -------
    threshold : of origin ``shared``, or ``none`` for a species without present boxes
    """
    if reason == "no present":
        return SpeciesThreshold(
            value=None, origin="none", reason=reason, present=present, absent=absent
        )
    return SpeciesThreshold(
        value=conservative,
        origin="shared",
        reason=reason,
        present=present,
        absent=absent,
        conservative=conservative,
        points=points,
    )
