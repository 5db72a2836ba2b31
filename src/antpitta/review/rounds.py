"""Which verdicts train the next model, and which judge it.

- Every verdict that the reviewers agree on judges all models of all rounds. Each score comes from
  a network that was not trained on the recording of the verdict (api/rounds.py), so no verdict has
  to be kept from training for that.
- Those of audits train nothing until the audit is released. What else is known of the same sound,
  such as another program's candidate in the same seconds, trains nothing either: it would give the
  audited sound away.
- Where reviewers differ or are unsure the verdict is unknown. It trains and judges nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from antpitta.core.identity import species_key
from antpitta.scores.metrics import Flags

COLUMNS = (
    *("recording", "start_time", "end_time", "low_freq", "high_freq", "species", "verdict"),
    *("held_verdict", "status", "reviewers", "site", "recorded_at", "recording_digest"),
)
SAME = ("recording_digest", "species", "start_time", "end_time", "verdict", "held_verdict")


def round_verdicts(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The verdicts of a queue that train the next model or judge it.

    Parameters
    ----------
    rows : as from :meth:`antpitta.review.store.Store.export_rows`

    Returns
    -------
    A table with :data:`COLUMNS`. ``verdict`` trains and judges; ``held_verdict`` judges alone. Each
    row has one of the two.
    """
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    known = (table["verdict"] != "") | (table["held_verdict"] != "")
    table = table[known].reset_index(drop=True)
    held = _beside_audits(table)
    table.loc[held, "held_verdict"] = table.loc[held, "verdict"]
    table.loc[held, "verdict"] = ""
    return table


def _beside_audits(table: pd.DataFrame) -> Flags:
    """Which rows that would train overlap an audited sound of their species."""
    keys = [species_key(name) for name in table["species"]]
    beside = np.zeros(len(table), dtype=bool)
    for _, own in table.groupby([table["recording_digest"], pd.Series(keys)], sort=False):
        audited = own[own["held_verdict"] != ""]
        if len(audited) in (0, len(own)):
            continue
        start, end = (audited[name].to_numpy(float) for name in ("start_time", "end_time"))
        own_start, own_end = (
            own[name].to_numpy(float)[:, None] for name in ("start_time", "end_time")
        )
        touches = ((own_start < end) & (start < own_end)).any(axis=1)
        beside[own.index] = touches & (own["held_verdict"] == "").to_numpy()
    return beside


def is_new(table: pd.DataFrame, earlier: pd.DataFrame) -> bool:
    """Whether there is a verdict that the round before did not have.

    Parameters
    ----------
    table, earlier : as from :func:`round_verdicts`

    Returns
    -------
    True or False.
    """
    known = set(earlier[list(SAME)].itertuples(index=False, name=None))
    return not known.issuperset(table[list(SAME)].itertuples(index=False, name=None))
