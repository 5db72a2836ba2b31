"""How long each class's boxes are, in frames: what `network.spans = "boxes"` stands for.

A head that is taught by the mean over a box is asked, at every moment of a recording, for the mean
over as much sound as a box of that class holds.
"""

import numpy as np

from antpitta.core.config import Recipe
from antpitta.core.errors import UserMistake
from antpitta.core.types import Dataset
from antpitta.files.aliases import pin_known
from antpitta.files.embedding import pin_embedding


def pin_recipe(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with all that only the data and the disk tell written in: what a run is of."""
    recipe = pin_embedding(recipe)
    if recipe.embedding is not None:
        known = pin_known(recipe.embedding, dataset)
        recipe = recipe.model_copy(update={"embedding": known})
    return fill_spans(recipe, dataset)


def fill_spans(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe, with each class's median box length (frames) written where "boxes" stood.

    Present boxes count where a class has any, else its absent ones; a class without boxes gets
    the median of all. Raises UserMistake where no box speaks of one class.
    """
    if recipe.network.spans != "boxes":
        return recipe
    own = [box for box in dataset.annotations if len(dataset.classes.columns(box.label)) == 1]
    if not own:
        raise UserMistake(
            'network.spans "boxes": there are no boxes of single species; leave it out'
        )
    lengths = []
    for column in range(len(dataset.classes)):
        mine = [box for box in own if dataset.classes.columns(box.label) == [column]]
        mine = [box for box in mine if box.present] or mine or own
        lengths.append(float(np.median([box.stop - box.start for box in mine])))
    drawing = recipe.drawing
    per_second = drawing.frames_of(drawing.image) / drawing.image
    spans = tuple(max(1, round(length * per_second)) for length in lengths)
    network = recipe.network.model_copy(update={"spans": spans})
    return recipe.model_copy(update={"network": network})
