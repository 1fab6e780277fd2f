"""The model that a cell left behind, to be looked at."""

from __future__ import annotations

from pathlib import Path

from zamba_lab.ablate.planning import plan
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study
from zamba_lab.model import Zamba


def trained(study: Study, store: str | Path | Store, arm: str, seed: int) -> Zamba:
    """The trained model of an arm and a seed, ready for inference.

    Raises ValueError if the study has no such cell, or its weights were not kept (a study keeps them with `weights: true`).
    """
    store = store if isinstance(store, Store) else Store(store)
    cells = [one.cell for one in plan(study, store).cells if (one.arm, one.seed, one.tuning) == (arm, seed, False)]
    if not cells:
        raise ValueError(
            f"the study {study.name!r} has no cell of arm {arm!r} and seed {seed}: there are the arms "
            f"{', '.join(one.name for one in study.every_arm)} and the seeds {study.seeds}"
        )
    model = Zamba(cells[0].config)
    model.load_state_dict(store.load_weights(cells[0].address))
    return model.eval()
