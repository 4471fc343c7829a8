"""Changed physics of MuJoCo environments, and their state as tensors.

A body of another density has another mass *and* another inertia. MuJoCo computes more from both (masses of subtrees,
inverse weights that scale its constraints): `mj_setConst` does that again, on data of its own, for it overwrites the
positions it is given. The environment is to be reset afterwards.
"""

from __future__ import annotations

from typing import Any

import torch

from danskin.errors import InputError, suggest
from danskin.games.rl.extra import needed


def _model(env: Any) -> Any:
    model = getattr(env.unwrapped, "model", None)
    if model is None or not hasattr(model, "body_mass"):
        raise InputError(f"physics: expected a MuJoCo environment, got {env.unwrapped}; use one of mujoco")
    return model


def scale_mass(env: Any, factor: float, body: str | None = None) -> None:
    """Give bodies `factor` times their mass and inertia, as if their density had changed; reset afterwards.

    Args:
        env: of MuJoCo; changed in place.
        factor: > 0, on what the masses are now.
        body: the name of one body; None for all.

    Raises:
        MissingError: mujoco is not installed.
        InputError: another environment, factor <= 0, or no such body.

    Lecture: G3.
    """
    mujoco, model = needed("mujoco"), _model(env)
    if not factor > 0:
        raise InputError(f"scale_mass: expected factor > 0, got {factor}; 1 is the mass as it is")
    rows: Any = slice(None)
    if body is not None:
        names = [model.body(i).name for i in range(model.nbody)]
        if body not in names:
            raise InputError(f"scale_mass: expected the name of a body, got {body!r}; {suggest(body, names)}")
        rows = names.index(body)
    model.body_mass[rows] *= factor
    model.body_inertia[rows] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))


def set_gravity(env: Any, gravity: float) -> None:
    """Give a MuJoCo environment another pull downwards, in m/s² (9.81 is nominal); reset afterwards.

    Raises:
        InputError: not of MuJoCo.
    """
    _model(env).opt.gravity[:] = (0.0, 0.0, -gravity)


def _limit(env: Any) -> Any:
    """The wrapper that counts steps."""
    while env is not env.unwrapped:
        if hasattr(env, "_elapsed_steps"):
            return env
        env = env.env
    raise InputError("physics: expected an environment with a time limit, got none; use gymnasium.make")


def physics_state(env: Any) -> dict[str, Any]:
    """Everything the next step of a MuJoCo environment depends on (integration state, steps so far)."""
    mujoco, model, data = needed("mujoco"), _model(env), env.unwrapped.data
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = torch.empty(mujoco.mj_stateSize(model, kind), dtype=torch.float64)
    mujoco.mj_getState(model, data, state.numpy(), kind)
    return {"state": state, "elapsed": _limit(env)._elapsed_steps}


def restore_physics(env: Any, saved: dict[str, Any]) -> None:
    """Put a MuJoCo environment back where `physics_state` found it."""
    mujoco, model, data = needed("mujoco"), _model(env), env.unwrapped.data
    mujoco.mj_setState(model, data, saved["state"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, saved["state"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
    _limit(env)._elapsed_steps = saved["elapsed"]
