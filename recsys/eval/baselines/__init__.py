"""What the trained model has to beat, ranked the same way on the same rows.

Baselines that learn here do so in this process, from the dataset's training rows; the sequence
models among them are trained by the train stage and come as checkpoints.
"""

from recsys.eval.baselines.popularity import Popularity
from recsys.eval.baselines.registry import NAMES, SEQUENCE_NAMES, make_baselines
from recsys.eval.baselines.sequence import (
    gru4rec_config,
    id_only_config,
    load_sequence,
    sasrec_config,
    sequence_config,
)

__all__ = [
    "NAMES",
    "SEQUENCE_NAMES",
    "Popularity",
    "gru4rec_config",
    "id_only_config",
    "load_sequence",
    "make_baselines",
    "sasrec_config",
    "sequence_config",
]
