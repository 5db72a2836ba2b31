"""What single cells of a table mean: verdicts, numbers, and scores at the end of labels."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VERDICT_COLUMNS = (
    *("verdict", "validated", "validation", "present", "presence", "is present", "correct"),
    *("review", "reviewed", "verified", "verification", "manual verification"),
)
PRESENT, ABSENT, UNKNOWN = 1, 0, -1  # a verdict; unknown: no person has judged the row
UNREADABLE = -2  # a verdict that is not understood: reported, and not counted as unknown
_PRESENT_WORDS = {"present", "positive", "confirmed", "correct", "valid", "verified"}
_PRESENT_WORDS |= {"yes", "y", "true", "t", "tp", "1", "1.0", "true positive"}
_ABSENT_WORDS = {"absent", "not present", "not_present", "negative", "rejected", "incorrect"}
_ABSENT_WORDS |= {"wrong", "invalid", "no", "n", "false", "f", "fp", "0", "0.0", "false positive"}
EMPTY = {"", "---", "--", "-", "na", "n/a", "nan", "none", "null"}
_UNKNOWN_WORDS = {"(not validated)", "not validated", "unvalidated", "unreviewed", "skip"}
_UNKNOWN_WORDS |= {"skipped", "uncertain", "unsure", "unknown", "maybe", "?"} | EMPTY
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|\+?inf(inity)?", re.IGNORECASE)
SCORE_WORDS = {"score", "confidence", "conf", "prob", "probability", "likelihood", "logit"}
SCORE_WORDS |= {"certainty"}
_LABEL_SCORE = re.compile(  # the score, and the verdict after it
    r"(?P<label>.*\S)(?:\s*[;|]\s*(?P<score>0?\.\d+|1\.0*|[01]|\d{1,3}(?:\.\d+)?\s?%)"
    r"(?:\s*;\s*(?P<verdict>[^;]*))?"
    r"|(?:[,:=]\s*|\s+)[(\[]?(?P<end>0?\.\d+|1\.0+|\d{1,3}(?:\.\d+)?\s?%)[)\]]?)\s*"
)


@dataclass(frozen=True)
class LabelParts:
    """The parts of each row's label, and its score."""

    label: np.ndarray  # (rows,), strings without scores
    score: np.ndarray  # (rows,), NaN for none, and for one that is no number
    scored: np.ndarray  # (rows,), whether there is a score
    verdict: np.ndarray  # (rows,), the word behind a score in a label, "" for none


def parse_word(text: str) -> int | None:
    """The verdict that a word means.

    Parameters
    ----------
    text : content of a cell

    Returns
    -------
    verdict : PRESENT, ABSENT or UNKNOWN; None for a text that is no verdict
    """
    spelling = text.strip().lower()
    words = {PRESENT: _PRESENT_WORDS, ABSENT: _ABSENT_WORDS, UNKNOWN: _UNKNOWN_WORDS}
    return next((value for value, spellings in words.items() if spelling in spellings), None)


def split_labels(label: np.ndarray, scores: Sequence[np.ndarray]) -> LabelParts:
    """Split labels from scores, which stand in columns of their own or at the end of a label.

    Parameters
    ----------
    label : (rows,), strings
    scores : columns of scores, (rows,) strings each, the most telling first

    Returns
    -------
    parts : labels without scores, and the scores
    """
    rows = len(label)
    parts = LabelParts(
        label.copy(),
        np.full(rows, math.nan),
        np.zeros(rows, dtype=bool),
        np.full(rows, "", dtype=object),
    )
    for column in scores:
        for i in np.flatnonzero(~parts.scored):
            if column[i].lower() not in EMPTY:
                parts.scored[i], parts.score[i] = True, _parse_score(column[i])
    for i in np.flatnonzero(~parts.scored):
        if match := _LABEL_SCORE.fullmatch(label[i]):
            # Behind a semicolon or a bar every character before it belongs to the name.
            name = match["label"]
            parts.label[i] = name if match["score"] else name.rstrip(" ;|,:=([")
            parts.verdict[i] = (match["verdict"] or "").strip()
            parts.scored[i], parts.score[i] = True, _parse_score(match["score"] or match["end"])
    return parts


def _parse_score(text: str) -> float:
    """A score, also in percent; NaN where it is no number."""
    number = text.rstrip("% ")
    if not NUMBER.fullmatch(number):
        return math.nan
    return float(number) / 100 if text.endswith("%") else float(number)
