"""libEnsemble: a history of given points, by MPI (mpirun -n WORKERS+1) or local processes (--comms local)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from libensemble import Ensemble
from libensemble.alloc_funcs.give_pregenerated_work import give_pregenerated_sim_work
from libensemble.specs import AllocSpecs, ExitCriteria, SimSpecs
from work import COUNT, TRIALS, WHAT, Run, Trial, drive


def simulate(inputs, persis_info, sim_specs, libe_info):
    output = np.zeros(1, dtype=sim_specs["out"])
    output["f"] = TRIALS[WHAT](int(inputs["x"][0]))
    return output, persis_info


def main() -> None:
    ensemble = Ensemble(parse_args=True)
    ensemble.libE_specs.save_every_k_sims = 100
    ensemble.libE_specs.disable_log_files = True

    def run(trial: Trial, inputs: Iterable[int]) -> list[float]:
        points = np.array([(x, x) for x in inputs], dtype=[("sim_id", int), ("x", int)])
        ensemble.H0 = points
        ensemble.sim_specs = SimSpecs(sim_f=simulate, inputs=["x"], outputs=[("f", float)])
        ensemble.alloc_specs = AllocSpecs(alloc_f=give_pregenerated_sim_work)
        ensemble.exit_criteria = ExitCriteria(sim_max=len(points))
        history, _, _ = ensemble.run()
        ensemble.save_output(__file__)
        return list(history["f"][history["sim_ended"]])

    @contextmanager
    def pool(workers: int) -> Iterator[Run]:
        yield run

    if ensemble.is_manager:
        drive(pool, stores=True, can_warm=False)
    else:
        # A rank of MPI that works.
        run(TRIALS[WHAT], range(COUNT))


if __name__ == "__main__":
    main()
