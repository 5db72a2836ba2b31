"""Which verdicts train the next model, and which judge it because no model has seen them.

- Of the recordings with verdicts a fifth is held out. Once held out, a recording stays so in all
  later rounds; once trained on, it is never held out. Neighbouring sounds of one recording resemble
  each other, so recordings are divided and not single sounds.
- A recording that the training data have boxes in is never held out.
- Verdicts of an audit that is not released judge as well, unless a model was trained on them before
  they were drawn, or on the recording's boxes in the training data.
"""

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import Any

import pandas as pd

HELD_OUT = 0.2  # share of recordings
COLUMNS = (
    *("recording", "start_time", "end_time", "low_freq", "high_freq", "species", "verdict"),
    *("held_verdict", "status", "reviewers", "site", "recorded_at", "recording_digest"),
)
_KEY = ["recording_digest", "species", "start_time", "end_time"]


def split_verdicts(
    rows: Iterable[Mapping[str, Any]],
    trained: Collection[str],
    earlier: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Divide the agreed verdicts of a queue into those that train and those that judge.

    Parameters
    ----------
    rows : as from :meth:`antpitta.review.store.Store.export_rows`
    trained : digests of the recordings that the training data have boxes in
    earlier : the table of the round before

    Returns
    -------
    A table with :data:`COLUMNS`: ``verdict`` trains, ``held_verdict`` judges; each row has one.
    """
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    audited = table["held_verdict"] != ""
    table = table[(table["verdict"] != "") | audited].reset_index(drop=True)
    audited = table["held_verdict"] != ""
    held = _held_recordings(table["recording_digest"], trained, earlier)
    out = table["recording_digest"].isin(held) & ~audited
    table.loc[out, "held_verdict"] = table.loc[out, "verdict"]
    table.loc[out, "verdict"] = ""
    known = audited & table["recording_digest"].isin(list(trained))
    if earlier is not None:
        used = pd.MultiIndex.from_frame(earlier.loc[earlier["verdict"] != "", _KEY])
        known |= audited & pd.MultiIndex.from_frame(table[_KEY]).isin(used)
    return table[~known].reset_index(drop=True)


def _held_recordings(
    digests: Iterable[str], trained: Collection[str], earlier: pd.DataFrame | None
) -> set[str]:
    free = sorted(set(digests) - set(trained), key=_order)
    held: set[str] = set()
    if earlier is not None:
        used = set(earlier.loc[earlier["verdict"] != "", "recording_digest"])
        held = {digest for digest in earlier["recording_digest"] if digest not in used}
    new = [digest for digest in free if digest not in held]
    if earlier is not None:
        new = [digest for digest in new if digest not in used]
    wanted = int(HELD_OUT * len(free)) - len(held & set(free))
    return held | set(new[: max(wanted, 0)])


def _order(digest: str) -> str:
    """A random order that is the same in every round."""
    return blake2b(digest.encode(), digest_size=8).hexdigest()
