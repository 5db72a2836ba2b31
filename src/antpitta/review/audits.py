"""The audits of a queue, as :mod:`antpitta.scores.audit` estimates from them.

- A species has the estimates of its latest audit. Earlier audits of the same model count with it
  where they were drawn from the same strata, so that "check 40 more" is one more draw. Within a
  stratum all candidates had the same chance in each draw, so those that are in any of the draws
  are a random part of it, and their share is the inclusion probability.
- An audit speaks for the candidates that it was drawn from. Where the queue has others of the same
  model by now, such as those of another season, the species is refused until a new audit is drawn.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.review.store import Store
from antpitta.scores.audit import AuditPin, SpeciesAudit, audit_species
from antpitta.scores.audit_thresholds import AuditThreshold, audit_threshold

_WORDS = {"present": 1.0, "absent": 0.0}
_COLUMNS = {"recording_id": "recording", "model_digest": "model"}
_SOUND = ["recording", "start_time", "end_time"]
_KEPT = (
    *("draw", "model", "species", "candidate", "recording", "site", "start_time", "end_time"),
    *("stratum", "inclusion_p", "score", "present", "released"),
)


@dataclass(frozen=True)
class QueueAudits:
    """The items of the latest audit of each species.

    Parameters
    ----------
    items : as :func:`antpitta.scores.audit.audit_all` takes them, and ``model``, ``start_time``,
        ``end_time`` (s) and ``released``
    refused : species whose audit does not fit the candidates of the queue any more, and why
    """

    items: pd.DataFrame
    refused: Mapping[str, str]

    def of_species(self, species: str) -> pd.DataFrame:
        """The items of one species.

        Parameters
        ----------
        species : in any spelling

        Returns
        -------
        items : with at least one verdict

        Raises
        ------
        UserError
            E_NO_AUDIT, E_AUDIT_RECORDINGS.
        """
        key = species_key(species)
        for name, why in self.refused.items():
            if species_key(name) == key:
                raise UserError("E_AUDIT_RECORDINGS", f"{name}: {why}", "draw a new audit")
        own = np.array([species_key(name) == key for name in self.items["species"]], dtype=bool)
        items = self.items[own]
        if items["present"].isna().all():
            what = f"{species}: no audit of it has a verdict yet"
            raise UserError("E_NO_AUDIT", what, "draw one with antpitta candidates --audit")
        return items


def open_queue(queue: Path | str) -> Store:
    """An existing queue, whose audits are to be read.

    Parameters
    ----------
    queue : folder, or the URL of a database

    Returns
    -------
    store : a context manager

    Raises
    ------
    UserError
        Those of :meth:`antpitta.review.store.Store.open`.
    """
    return Store.open(queue)


def read_audits(store: Store) -> QueueAudits:
    """The audits of a queue.

    Parameters
    ----------
    store : an open queue

    Returns
    -------
    audits : without items where there is no audit
    """
    rows = pd.DataFrame(store.audit_rows())
    if rows.empty:
        return QueueAudits(pd.DataFrame(columns=list(_KEPT)), {})
    items = rows.rename(columns=_COLUMNS)
    items["present"] = items["verdict"].map(_WORDS).astype(float)
    items["released"] = items["released_at"].notna()
    kept = [pool_draws(group[list(_KEPT)]) for _, group in items.groupby("species", sort=True)]
    return QueueAudits(pd.concat(kept, ignore_index=True), _refused(store, kept))


def pool_draws(items: pd.DataFrame) -> pd.DataFrame:
    """The items of the latest audit of a species, with those of earlier audits that are like it.

    Parameters
    ----------
    items : of one species, from any number of draws

    Returns
    -------
    items : each candidate once, with the share of its stratum that is in any of the draws
    """
    draws = [own for _, own in items.groupby("draw", sort=True)]
    latest = draws[-1]
    sizes = _stratum_sizes(latest)
    poolable = [
        own
        for own in draws
        if own["model"].iloc[0] == latest["model"].iloc[0] and _stratum_sizes(own) == sizes
    ]
    kept = pd.concat(poolable).drop_duplicates("candidate", keep="last")
    drawn = kept.groupby("stratum")["candidate"].transform("size")
    share = (drawn / kept["stratum"].map(sizes)).clip(upper=1.0)
    released = items[items["released"]][_SOUND].drop_duplicates()
    is_known = len(kept.merge(released, on=_SOUND)) > 0  # of these, or in an audit of another model
    return kept.assign(inclusion_p=share, released=is_known)


def _stratum_sizes(items: pd.DataFrame) -> dict[str, int]:
    """How many candidates each stratum of a draw was drawn from."""
    groups = items.groupby("stratum")["inclusion_p"]
    return {str(name): round(len(p) / float(p.iloc[0])) for name, p in groups}


def _refused(store: Store, audits: list[pd.DataFrame]) -> dict[str, str]:
    counts = Counter(
        (row["source_digest"], row["species"])
        for row in store.candidates()
        if row["score"] is not None
    )
    refused = {}
    for own in audits:
        model, species = (str(own[name].iloc[0]) for name in ("model", "species"))
        drawn_from = sum(_stratum_sizes(own).values())
        if counts[model, species] != drawn_from:
            refused[species] = (
                f"its audit was drawn from {drawn_from} candidates, and the queue has "
                f"{counts[model, species]} of this model"
            )
    return refused


def species_threshold(
    store: Store, species: str, precision: float, superseded: Collection[str] = ()
) -> dict[str, Any]:
    """What the review page shows about the threshold of a species.

    Parameters
    ----------
    store : an open queue
    species : in any spelling
    precision : wanted, above 0 and up to 1
    superseded : digests of models that a round has replaced

    Returns
    -------
    answer : for JSON: ``species``, ``model``, ``sentence``, ``threshold`` (None where there are too
        few verdicts), ``reached``, ``enough``, ``more``, ``judged``, ``unjudged``, and
        ``precision``, ``missed``, ``recall``, ``prevalence`` as lists of estimate and limits

    Raises
    ------
    UserError
        E_NO_AUDIT, E_AUDIT_RECORDINGS, E_AUDIT_MODEL for a model that was replaced, E_OPTION for a
        precision that is none.
    """
    check_precision(precision)
    items = read_audits(store).of_species(species)
    model = str(items["model"].iloc[0])
    if model in superseded:
        raise UserError(
            "E_AUDIT_MODEL",
            f"{species}: its audit has scores of an earlier round's model",
            "predict with the new model, then run antpitta evaluate QUEUE --predicted OUT, or "
            "draw a new audit",
        )
    audit = estimate_species(items)
    return {"model": model, **threshold_row(audit, audit_threshold(audit, precision))}


def estimate_species(items: pd.DataFrame) -> SpeciesAudit:
    """The estimates of one species, the same whenever they are asked for.

    Parameters
    ----------
    items : of one species

    Returns
    -------
    audit : with intervals
    """
    return audit_species(items, np.random.default_rng(0))


def check_precision(precision: float) -> None:
    """Refuse what is no precision.

    Parameters
    ----------
    precision : as a user gave it

    Raises
    ------
    UserError
        E_OPTION.
    """
    if not 0 < precision <= 1:
        what = f"a precision of {precision:g}"
        raise UserError("E_OPTION", what, "give a share above 0 and up to 1, such as 0.9")


def threshold_row(audit: SpeciesAudit, threshold: AuditThreshold) -> dict[str, Any]:
    """The estimates of a species at its threshold.

    Parameters
    ----------
    audit : of the species
    threshold : chosen from it

    Returns
    -------
    row : as :func:`species_threshold` returns it
    """
    intervals = {
        "precision": threshold.precision,
        "missed": threshold.missed,
        "recall": threshold.recall,
        "prevalence": audit.prevalence,
    }
    return {
        "species": audit.species,
        "sentence": threshold.sentence(),
        "threshold": _numbers(threshold.threshold)[0],
        **{name: getattr(threshold, name) for name in ("reached", "enough", "more")},
        "judged": audit.judged,
        "unjudged": audit.unjudged,
        **{name: _numbers(each.value, each.low, each.high) for name, each in intervals.items()},
    }


def _numbers(*values: float) -> list[float | None]:
    """Values for JSON, which has no NaN."""
    return [value if np.isfinite(value) else None for value in values]


def audit_pin(store: Store, model: str) -> AuditPin:
    """The recordings that the candidates of a model lie in.

    Parameters
    ----------
    store : an open queue
    model : digest

    Returns
    -------
    pin : of the model and these recordings
    """
    rows = store.candidates()
    recordings = {row["recording_id"] for row in rows if row["source_digest"] == model}
    return AuditPin(model, frozenset(recordings))
