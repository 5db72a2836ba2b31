"""candidates: a queue of sounds to listen to, from any source, and what to listen to first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, InstanceOf

from antpitta.api.candidate_sources import add_digests, find_audio, place_rows, read_source
from antpitta.api.data import SILENT
from antpitta.api.member_scores import member_disagreement, open_members
from antpitta.core.arguments import PathArgument, PathArguments, as_paths, checked
from antpitta.core.errors import Finding, UserError
from antpitta.core.progress import Progress
from antpitta.core.types import Recording
from antpitta.files.bundle import Bundle
from antpitta.files.queue import check_queue_folder, is_url
from antpitta.review.candidates import DISAGREEMENT
from antpitta.review.merging import merge_detections
from antpitta.review.store import Store
from antpitta.search.designs import AuditDraw, TeachingPool, draw_audit, draw_teach

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
MERGE_GAP = 0.5  # seconds


@dataclass(frozen=True)
class Candidates:
    """The result of :func:`candidates`.

    Attributes
    ----------
    queue : folder or URL
    added, known : numbers of candidates that are new, and that the queue had
    recordings, species : numbers of the candidates' recordings and species
    verdicts : verdicts that the tables had
    draws : the new draws: ``id``, ``purpose``, ``design``, ``items``
    findings : rows that are left out
    """

    queue: str
    added: int
    known: int
    recordings: int
    species: int
    verdicts: int
    draws: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...] = field(default=(), repr=False)


@checked
def candidates(
    sources: PathArguments,
    queue: PathArgument,
    *,
    audio: PathArguments = (),
    model: PathArgument | None = None,
    teach: Count = 0,
    audit: Count = 0,
    merge_gap: Seconds = MERGE_GAP,
    seed: Count = 0,
    progress: InstanceOf[Progress] = SILENT,
) -> Candidates:
    """Put candidates of any source into a queue, and draw what people are to listen to.

    Without ``teach`` and ``audit`` all candidates that were not drawn before are drawn, those with
    the highest scores first. What the queue has already is not added again.

    Parameters
    ----------
    sources
        Folders that ``predict`` or ``match`` wrote; tables of BirdNET-Analyzer, Raven, Audacity,
        Kaleidoscope or Arbimon. Verdicts in them are kept, as those of a reviewer of the table's
        name.
    queue
        The folder of the queue, or the URL of a database; made where it is missing.
    audio
        Folders of the recordings; by default the files that the tables name.
    model
        A model, or the folder of a run. Its networks score the candidates one by one, and the
        standard deviation of their scores is stored as ``disagreement``, in place of an earlier
        one.
    teach
        The number of candidates to teach the next model with: those that it is unsure of and its
        networks disagree on, spread over sites, and the best ones of the species with the fewest
        calls so far.
    audit
        The number of candidates of each species to estimate errors with, drawn at random within
        strata of the score. Their verdicts train no model until the draw is released.
    merge_gap
        Detections of a species that are at most this far apart become one candidate.
    seed
        Of the draws.
    progress
        Receives progress of the scoring by ``model``.

    Returns
    -------
    Candidates

    Raises
    ------
    UserError
        ``E_NO_FILE`` and the errors of reading tables, ``E_NO_MATCHING_AUDIO`` if no row has its
        recording, ``E_DATA_MISSING`` without recordings, ``E_OUT_NOT_EMPTY`` for a folder that
        holds something else, ``E_QUEUE_...`` for a database that cannot be used, ``E_OPTION`` for
        a model of one network, and the errors of reading a model.

    Examples
    --------
    >>> candidates("out", "queue", audio="recordings", audit=60)  # doctest: +SKIP
    """
    paths = [Path(path) for path in as_paths(sources)]
    if not paths:
        raise UserError("E_DATA_MISSING", "no candidates are given", "name a folder of predict")
    if not is_url(queue):
        check_queue_folder(Path(queue), create=True)
    members = None if model is None else open_members(Path(model))
    folders = [Path(folder) for folder in as_paths(audio)]
    tables, recordings, findings = _read(paths, folders, merge_gap)
    if members:
        findings += _add_disagreement(members, tables, recordings, progress)
    with Store.open(queue, create=True) as store:
        counts = dict.fromkeys(("added", "known", "verdicts"), 0)
        for name, table in tables:
            for key, value in _add(store, name, table).items():
                counts[key] = counts.get(key, 0) + value
        rng = np.random.default_rng(seed)
        digests = list(dict.fromkeys(table["source_digest"].iloc[0] for _, table in tables))
        draws = [_audit(store, digest, audit, seed, rng) for digest in digests if audit]
        draws += [_teach(store, teach, seed, rng)] if teach else []
        draws += [] if teach or audit else [_all(store)]
        made = {draw for draw in draws if draw is not None}
        return Candidates(
            str(queue),
            *(counts["added"], counts["known"]),
            len({digest for _, table in tables for digest in table["recording_digest"]}),
            len({species for _, table in tables for species in table["species"]}),
            counts["verdicts"],
            tuple(draw for draw in store.draws() if draw["id"] in made),
            tuple(findings),
        )


def _read(
    paths: Sequence[Path], audio: Sequence[Path], merge_gap: float
) -> tuple[list[tuple[str, pd.DataFrame]], Sequence[Recording], list[Finding]]:
    """The candidates of each source that has any, the recordings here, and what is left out."""
    sources = [read_source(path) for path in paths]
    here = find_audio(sources, audio)
    tables, findings = [], [finding for finding in here.findings if finding.serious]
    for source in sources:
        placed, left_out = place_rows(source, here.recordings)
        findings += left_out
        if len(placed):
            placed = add_digests(placed)
            judged = placed["verdict"] != ""  # a verdict is about its own box
            merged = [merge_detections(placed[~judged], merge_gap), placed[judged]]
            tables.append((source.path.name, pd.concat([part for part in merged if len(part)])))
    if not tables:
        first = findings[0] if findings else None
        what = f"{', '.join(map(str, paths))}: no candidate has its recording here"
        if first:
            what = f"{what}; {first.what}"
        raise UserError("E_NO_MATCHING_AUDIO", what, "check --audio")
    return tables, here.recordings, findings


def _add_disagreement(
    members: Bundle,
    tables: list[tuple[str, pd.DataFrame]],
    recordings: Sequence[Recording],
    progress: Progress,
) -> list[Finding]:
    """Give the candidates of all sources their disagreement; each recording is scored once."""
    joined = pd.concat([table for _, table in tables], ignore_index=True)
    spread, findings = member_disagreement(members, joined, recordings, progress)
    sizes = np.cumsum([len(table) for _, table in tables])[:-1]
    for (_, table), own in zip(tables, np.split(spread, sizes), strict=True):
        table[DISAGREEMENT] = own
    return findings


def _add(store: Store, name: str, table: pd.DataFrame) -> dict[str, int]:
    reviewer = None
    if (table["verdict"] != "").any():
        reviewer = store.add_reviewer(f"{table['source'].iloc[0]} table {name}"[:100])
    counts = store.add_candidates(table, reviewer)
    return {key: counts[key] for key in ("added", "known", "verdicts")}


def _all(store: Store) -> int | None:
    """Draw every candidate that was not drawn before, by its score."""
    rows = [row for row in store.candidates() if not row["designs"] and not row["judged"]]
    rows.sort(key=lambda row: -(row["score"] or 0.0))
    if not rows:
        return None
    return store.create_draw("teach", "by score", 0, rows)


def _audit(
    store: Store, digest: str, count: int, seed: int, rng: np.random.Generator
) -> int | None:
    """Draw candidates of each species of one model at random within strata of their scores."""
    by_species: dict[str, list[dict[str, Any]]] = {}
    for row in store.candidates():
        if row["source_digest"] == digest and row["score"] is not None:
            by_species.setdefault(row["species"], []).append(row)
    items: list[dict[str, Any]] = []
    for rows in by_species.values():
        score = np.array([row["score"] for row in rows])
        items += _audit_items(rows, score, draw_audit(score, count, rng))
    if not items:
        return None
    mixed = [items[i] for i in rng.permutation(len(items))]  # no order tells anything of a score
    only = next(iter(by_species)) if len(by_species) == 1 else None
    return store.create_draw(
        "audit", "strata of the score", seed, mixed, species=only, model_digest=digest
    )


def _audit_items(
    rows: Sequence[dict[str, Any]], score: "np.ndarray[Any, Any]", draw: AuditDraw
) -> Iterable[dict[str, Any]]:
    bounds = [score.min(), *draw.edges, score.max()]
    for item, stratum, inclusion in zip(draw.item, draw.stratum, draw.inclusion, strict=True):
        edges = f"{bounds[stratum]:.4g} to {bounds[stratum + 1]:.4g}"
        yield {
            "candidate": rows[item]["candidate"],
            "stratum": f"{stratum + 1}: {edges}",  # edges that are close look alike
            "inclusion_p": float(inclusion),
        }


def _teach(store: Store, count: int, seed: int, rng: np.random.Generator) -> int | None:
    """Draw what a model learns most from, of the sounds that nobody judged or was asked about."""
    pool: dict[tuple[int, str], dict[str, Any]] = {}
    for row in store.candidates():
        asked = {"held", "teach"} & set(row["designs"])
        if not row["judged"] and not asked:
            pool.setdefault((row["region"], row["species"]), row)
    rows = list(pool.values())
    if not rows:
        return None
    known = {row["species"]: row["present"] for row in store.progress()}
    names = sorted(known)
    index = {name: i for i, name in enumerate(names)}
    sites = [row["site"] or row["recording_id"] for row in rows]
    spread = np.array([row[DISAGREEMENT] for row in rows], dtype=float)  # NaN where unknown
    drawn = draw_teach(
        TeachingPool(
            species=np.array([index[row["species"]] for row in rows]),
            score=np.array([0.5 if row["score"] is None else row["score"] for row in rows]),
            site=np.unique(sites, return_inverse=True)[1],
            calls=np.array([known[name] for name in names]),
            disagreement=None if np.isnan(spread).all() else spread,
        ),
        *(count, rng),
    )
    return store.create_draw("teach", "teach", seed, [rows[i] for i in drawn])
