"""Which engine hears for a model: by what the machine has, what was exported, and what is asked."""

from antpitta.core.choices import Precision, Scan
from antpitta.core.config import GIVEN, Recipe
from antpitta.core.errors import UserMistake
from antpitta.files.bundle import Bundle
from antpitta.net.engines import Engine, Hearing, Vino, faster_float
from antpitta.net.gpu import has_gpu

KINDS = {"f32": "float", "bf16": "float", "int8": "int8"}  # which exported network serves


def settle(precision: Precision, scan: Scan, model: Bundle) -> Precision:
    """The precision that "auto" comes to on this machine, for this model."""
    if precision != "auto":
        return precision
    if scan == "windows":
        return "f32"
    parts = model.parts() or [model]
    if has_gpu() or not any(part.networks for part in parts):
        return "f32"
    return faster_float()


def open_engine(model: Bundle, recipe: Recipe, hearing: Hearing, width: int) -> Engine:
    """The engine of one model; ``width`` is that of its pictures.

    Raises UserMistake where there is none for the precision asked for, and for the weights of
    another version's network.
    """
    windows = hearing.scan == "windows" or recipe.network.backbone == GIVEN
    if hearing.scan == "windows" and hearing.precision not in ("auto", "f32"):
        raise UserMistake(
            f"--precision {hearing.precision}: --scan windows is the exact mode and computes in "
            "float32; leave one of the two out"
        )
    gpu = has_gpu()
    precision = settle(hearing.precision, hearing.scan, model)
    exported = None if windows or gpu else model.networks.get(KINDS[precision])
    if exported is not None:
        kind = "f32" if precision == "int8" else precision
        return Vino(model.path / exported, kind, len(model.weights), hearing.workers)
    if precision == "int8" and not windows:
        raise UserMistake(f"--precision int8: {model.path} {_why_not(model, gpu)}; take auto")
    from antpitta.net.torch_engine import Torch, build_nets

    try:
        nets = build_nets(recipe, model.states(), len(model.species), width)
    except RuntimeError:
        raise UserMistake(
            f"{model.path}: its weights do not fit the network of its recipe as this version of "
            "antpitta builds it; train the model again"
        ) from None
    whole = recipe.drawing.frames_of(recipe.drawing.image)
    return Torch(nets, whole, recipe.windows if windows else None, half=precision == "bf16")


def _why_not(model: Bundle, gpu: bool) -> str:
    if gpu:
        return "is heard by PyTorch on this machine's GPU, which has no int8"
    if not model.networks:
        return "was written without networks for OpenVINO; train it again"
    return "has no int8 network: it lost too much accuracy when it was tried (see MODEL_CARD.md)"
