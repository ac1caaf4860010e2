"""The embedded demo: a simulated camera over a conveyor belt, and small models trained on it.

Nothing here comes from somebody else: the frames are drawn (:mod:`tinysaver_edge.demo.camera`) and
the models (:mod:`tinysaver_edge.demo.show`) were trained on such frames by
``examples/train_demo_models.py``, which only uses seeds from ``TRAINING_SEEDS_FROM`` on.
"""

from __future__ import annotations

from typing import Final

#: Seeds from here on drew the frames that the shipped models were trained on: fresh frames, for the
#: demo, for calibration and for tests, come from smaller seeds.
TRAINING_SEEDS_FROM: Final = 1_000_000
