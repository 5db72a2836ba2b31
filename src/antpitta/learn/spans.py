"""How long each class's boxes are and which bands they lie in: what "boxes" stands for in a recipe.

A head that is taught by the mean over a box is asked, at every moment of a recording, for the mean
over as much sound as a box of that class holds (`network.spans`). And it is shown no more than the
bands that its boxes lie in (`network.reach`): a dozen boxes cannot tell it that what calls
above or below them does not matter.
"""

import numpy as np

from antpitta.core.config import Recipe
from antpitta.core.errors import UserMistake
from antpitta.core.types import Annotation, Dataset
from antpitta.files.aliases import pin_known
from antpitta.files.embedding import pin_embedding
from antpitta.sound.logmel import band_edges


def pin_recipe(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with all that only the data and the disk tell written in: what a run is of."""
    recipe = pin_embedding(recipe)
    if recipe.embedding is not None:
        known = pin_known(recipe.embedding, dataset)
        recipe = recipe.model_copy(update={"embedding": known})
    return fill_reach(fill_spans(recipe, dataset), dataset)


def fill_spans(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe, with each class's median box length (frames) written where "boxes" stood.

    Present boxes count where a class has any, else its absent ones; a class without boxes gets
    the median of all. Raises UserMistake where no box speaks of one class.
    """
    if recipe.network.spans != "boxes":
        return recipe
    lengths = [
        float(np.median([box.stop - box.start for box in mine]))
        for mine in _boxes_by_class(dataset, "network.spans")
    ]
    drawing = recipe.drawing
    per_second = drawing.frames_of(drawing.image) / drawing.image
    spans = tuple(max(1, round(length * per_second)) for length in lengths)
    network = recipe.network.model_copy(update={"spans": spans})
    return recipe.model_copy(update={"network": network})


def fill_reach(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe, with the bands that each class's boxes touch (from, to) where "boxes" stood.

    They go from the lowest to the highest band of any of the class's boxes, chosen as in
    :func:`fill_spans`; a box without frequencies touches all. Raises UserMistake as it does.
    """
    if recipe.network.reach != "boxes":
        return recipe
    edges = band_edges(recipe.front)  # band i reaches from edge i to edge i + 2
    found = []
    for mine in _boxes_by_class(dataset, "network.reach"):
        low, high = min(box.low for box in mine), max(box.high for box in mine)
        touched = np.flatnonzero((edges[2:] > low) & (edges[:-2] < high))
        whole = not len(touched)  # boxes beyond the picture
        bands = (0, recipe.front.bands) if whole else (int(touched[0]), int(touched[-1]) + 1)
        found.append(bands)
    network = recipe.network.model_copy(update={"reach": tuple(found)})
    return recipe.model_copy(update={"network": network})


def _boxes_by_class(dataset: Dataset, what: str) -> list[list[Annotation]]:
    """Present boxes where a class has any, else its absent ones; else those of all."""
    own = [box for box in dataset.annotations if len(dataset.classes.columns(box.label)) == 1]
    if not own:
        raise UserMistake(f'{what} "boxes": there are no boxes of single species; leave it out')
    found = []
    for column in range(len(dataset.classes)):
        mine = [box for box in own if dataset.classes.columns(box.label) == [column]]
        found.append([box for box in mine if box.present] or mine or own)
    return found
