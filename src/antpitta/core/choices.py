"""The words that a user chooses from, where a command and the room that acts on it share them."""

from typing import Literal

By = Literal["mean", "sharp", "rank", "auc", "fit"]  # how an ensemble blends (scores/blend.py)
Scan = Literal["whole", "windows"]  # in what pieces sound is heard (net/engines.py)
Precision = Literal["auto", "f32", "bf16", "int8"]  # and by what arithmetic
# what events are written as (archive/events.py, archive/camtrap.py)
Form = Literal["csv", "parquet", "raven", "audacity", "kaleidoscope", "camtrapdp"]
Engine = Literal["local", "ray"]  # on this machine, or on a Ray cluster (archive/cluster.py)
