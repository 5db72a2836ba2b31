"""Audits with the scores of another model: the next one, after a round of review.

The verdicts and the inclusion probabilities of an audit stay true for any model. Its scores do not.
A candidate's new score is the highest among the new model's detections of the species that touch
it in time; without any it is lower than all of them. Two things cannot be mended, and are refused:

- A model whose training saw the verdicts. Only an audit that is not released is unseen.
- Detections that touch no candidate of the audited model. Nothing is known of these, so they may
  be ``MAX_OUTSIDE`` of all at most.
"""

import numpy as np
import pandas as pd

from antpitta.core.errors import UserError
from antpitta.core.identity import species_key
from antpitta.review.audits import QueueAudits, audit_pin
from antpitta.review.store import Store
from antpitta.scores.audit import AuditPin
from antpitta.scores.metrics import Flags, Floats

MAX_OUTSIDE = 0.05


def score_audits(
    store: Store, audits: QueueAudits, detections: pd.DataFrame, model: str, recordings: set[str]
) -> QueueAudits:
    """The audits of a queue with the scores of a prediction.

    Parameters
    ----------
    store : an open queue
    audits : of it
    detections : ``recording`` (an id of the queue), ``species``, ``score``, ``start_time``,
        ``end_time`` (s)
    model : digest of the model that made them
    recordings : ids of all recordings that it was applied to

    Returns
    -------
    audits : those of the same model as they are, the others with new scores

    Raises
    ------
    UserError
        E_AUDIT_RECORDINGS for other recordings than the audited ones, E_AUDIT_MODEL for a model
        that may have been trained on the verdicts.
    """
    keys = np.array([species_key(name) for name in detections["species"]], dtype=object)
    parts, refused = [], dict(audits.refused)
    for name, items in audits.items.groupby("species", sort=True):
        species, audited = str(name), str(items["model"].iloc[0])
        pin = audit_pin(store, audited)
        if audited == model:
            pin.check(AuditPin(model, frozenset(detections["recording"])), "the detections")
            parts.append(items)
            continue
        pin.check(AuditPin(audited, pin.recordings & recordings), "the detections")
        _check_unseen(items, species, model)
        own = detections[keys == species_key(species)]
        outside = _outside(store, species, audited, own)
        if outside > MAX_OUTSIDE:
            refused[species] = (
                f"{100 * outside:.0f} % of the detections of another model touch no audited "
                "candidate, so nothing is known of them"
            )
        else:
            parts.append(items.assign(score=_new_scores(items, own), model=model))
    kept = pd.concat(parts, ignore_index=True) if parts else audits.items.iloc[:0]
    return QueueAudits(kept, refused)


def _check_unseen(items: pd.DataFrame, species: str, model: str) -> None:
    if items["released"].any():
        raise UserError(
            "E_AUDIT_MODEL",
            f"{species}: the audit is released, so the model {model[:12]} may have been trained on "
            "its verdicts",
            "draw an audit of this model's candidates",
        )


def _outside(store: Store, species: str, model: str, detections: pd.DataFrame) -> float:
    """The share of the detections that touch no candidate of the audited model."""
    candidates = pd.DataFrame(store.candidates(species))
    candidates = candidates[candidates["source_digest"] == model]
    by_recording = dict(list(candidates.groupby("recording_id")))
    inside = 0
    for recording, own in detections.groupby("recording"):
        if (known := by_recording.get(recording)) is not None:
            inside += int(_touches(own, known).any(axis=1).sum())
    return 1 - inside / len(detections) if len(detections) else 0.0


def _new_scores(items: pd.DataFrame, detections: pd.DataFrame) -> Floats:
    """The score of each item; one that no detection touches is below all detections."""
    lowest = float(detections["score"].min()) if len(detections) else 1.0
    scores = np.full(len(items), 0.0 if lowest > 0 else lowest - 1)
    by_recording = dict(list(detections.groupby("recording")))
    places = np.arange(len(items))
    for recording, own in items.assign(place=places).groupby("recording"):
        if (known := by_recording.get(recording)) is not None:
            value = np.where(_touches(own, known), known["score"].to_numpy(float), -np.inf)
            best = value.max(axis=1)
            rows = own["place"].to_numpy()
            scores[rows] = np.where(np.isfinite(best), best, scores[rows])
    return scores


def _touches(rows: pd.DataFrame, columns: pd.DataFrame) -> Flags:
    """Which of two tables of places in one recording overlap in time: (rows, columns)."""
    start, end = (columns[name].to_numpy(float) for name in ("start_time", "end_time"))
    own_start, own_end = (
        rows[name].to_numpy(float)[:, None] for name in ("start_time", "end_time")
    )
    return np.asarray((own_start < end) & (start < own_end))
