"""What went wrong, in one line: what, where, and what to do about it."""

from dataclasses import dataclass


class UserError(Exception):
    """Something only the user can mend; its text is one line that names the remedy.

    The command line prints it and exits with 2. Never raise it for a bug of ours.
    """


@dataclass(frozen=True)
class Finding:
    """One problem in somebody's data, where it lies, and how to mend it."""

    file: str
    row: int | None  # line of the table, the header being line 1; None for the whole file
    what: str
    remedy: str
    serious: bool  # True: training or scoring on it would give a wrong result

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}:{self.row}"
        return f"{where}: {self.what}; {self.remedy}"
