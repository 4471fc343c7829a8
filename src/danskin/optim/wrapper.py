"""An optimiser around others: their parameter groups and their state are its own, not copies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from danskin.errors import InputError

Closure = Callable[[], Any]
_STATES = "parameters_with_state"
_TAKEN, _LEFT_OUT = "steps_taken", "steps_skipped"


class Wrapper(Optimizer):
    """A `torch.optim.Optimizer` whose groups and state are those of one base optimiser, or of several.

    Learning-rate schedulers, `GradScaler` and `torch.distributed.checkpoint` see the very groups that the base
    optimisers step with. `state_dict` has torch's own form: the base's moments, and what the subclass keeps beside
    them, so that training goes on bit for bit.

    Args:
        base: an optimiser, or several over different parameters (Muon for matrices and AdamW for the rest).

    Raises:
        InputError: no optimiser, one that runs closures by itself, or a parameter in two of them.
    """

    nests: ClassVar[bool] = False  # whether it may stand around another of its kind

    def __init__(self, base: Optimizer | Sequence[Optimizer]) -> None:
        bases = [base] if isinstance(base, Optimizer) else list(base) if isinstance(base, Sequence) else [base]
        for one in bases:
            if not isinstance(one, Optimizer):
                raise InputError(
                    f"{type(self).__name__}: expected a torch optimiser, or several, got {type(one).__name__}; write "
                    f"{type(self).__name__}(torch.optim.SGD(model.parameters(), lr=0.1))"
                )
            if isinstance(one, torch.optim.LBFGS) or (isinstance(one, Wrapper) and not self.nests):
                raise InputError(
                    f"{type(self).__name__}: expected an optimiser that steps along the gradients it finds, got "
                    f"{type(one).__name__}, which runs closures by itself; use SGD, AdamW, Muon or another"
                )
        if not bases:
            raise InputError(f"{type(self).__name__}: expected at least one optimiser, got none")
        self._bases: list[Optimizer] = bases
        self._kept: dict[str, Any] = {}  # of subclasses: numbers and tensors that are saved and belong to no parameter
        names = [id(p) for p in self._parameters()]
        if len(set(names)) < len(names):
            raise InputError(f"{type(self).__name__}: expected each parameter in one optimiser, got one in two")
        super().__init__([{"params": []}], {})
        for name in (_TAKEN, _LEFT_OUT):  # shared with a wrapper inside
            self.param_groups[0].setdefault(name, 0)

    # --- what is counted ----------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps taken, skipped ones included; saved with the optimiser."""
        return int(self.param_groups[0][_TAKEN])

    @property
    def skipped(self) -> int:
        """Steps left out since a gradient or the loss was not finite; saved with the optimiser."""
        return int(self.param_groups[0][_LEFT_OUT])

    def _count(self, ok: bool) -> None:
        """One step more, left out or not."""
        counts = self.param_groups[0]
        counts[_TAKEN] += 1
        counts[_LEFT_OUT] += not ok

    # --- what is shared -----------------------------------------------------------------------------------

    @property
    def base(self) -> Optimizer:
        """The first base optimiser."""
        return self._bases[0]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base's own list; of several, their groups one after the other."""
        if len(self._bases) == 1:
            return self._bases[0].param_groups
        return [group for one in self._bases for group in one.param_groups]

    @param_groups.setter
    def param_groups(self, groups: Any) -> None:
        pass  # torch's constructor sets an empty list

    @property
    def state(self) -> Any:
        """The base's own state; of several, all in one mapping."""
        if len(self._bases) == 1:
            return self._bases[0].state
        return defaultdict(dict, {p: kept for one in self._bases for p, kept in one.state.items()})

    @state.setter
    def state(self, state: Any) -> None:
        pass

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimiser."""
        if param_group.get("params") == []:  # torch's constructor
            return
        if len(self._bases) > 1:
            raise InputError(
                f"{type(self).__name__}.add_param_group: expected one base optimiser, got {len(self._bases)}; add the "
                "group to the one that is to step it"
            )
        self._bases[0].add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of all bases."""
        if set_to_none:  # as torch does, without its profiling: it is called several times a step
            for p in self._parameters():
                p.grad = None
            return
        for one in self._bases:
            one.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """That of torch and how many parameters have state; what belongs to no parameter is under "kept"."""
        found = super().state_dict()
        found["param_groups"][0][_STATES] = sum(map(bool, found["state"].values()))
        return found | {"kept": dict(self._kept)} if self._kept else found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave, also on another device; or what a plain base optimiser's gave.

        Raises:
            InputError: less of it is there than was saved. torch.distributed.checkpoint leaves all of it out, without a
                word, where the optimiser it is loaded into has gradients and no state yet (pytorch issue 140898).
        """
        saved = max((group.get(_STATES, 0) for group in state_dict["param_groups"]), default=0)
        found = sum(map(bool, state_dict["state"].values()))
        if found < saved:
            raise InputError(
                f"{type(self).__name__}.load_state_dict: expected the state of {saved} parameters, got that of "
                f"{found}; with torch.distributed.checkpoint call opt.zero_grad() before get_state_dict, which asks "
                "for no state while gradients are set"
            )
        before = dict(self.param_groups[0])
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "kept"})
        self._kept = dict(state_dict.get("kept", {}))
        for name, value in before.items():
            self.param_groups[0].setdefault(name, value)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What `load_state_dict` found, given back to the bases."""
        if "_bases" in state:  # unpickled
            self.__dict__.update(state)
            return
        groups, start = state["param_groups"], 0
        for one in self._bases:
            own = groups[start : start + len(one.param_groups)]
            start += len(own)
            mine = {p for group in own for p in group["params"]}
            one.__setstate__(
                {
                    "state": defaultdict(dict, {p: s for p, s in state["state"].items() if p in mine}),
                    "param_groups": own,
                }
            )

    # --- for subclasses -----------------------------------------------------------------------------------

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def _moved(self) -> list[Tensor]:
        """The parameters that have a gradient; the others stay where they are."""
        return [p for p in self._parameters() if p.grad is not None]

    def _home(self, parameter: Tensor) -> dict[str, Any]:
        """Where the state of a parameter is kept."""
        if len(self._bases) == 1:
            return self._bases[0].state[parameter]
        home = next(one for one in self._bases if any(parameter is p for g in one.param_groups for p in g["params"]))
        return home.state[parameter]

    def _told(self, name: str, value: float | None = None) -> float:
        """A number that is saved with the optimiser, in its first group; set where a value is given."""
        group = self.param_groups[0]
        if value is not None:
            group[name] = value
        return group[name]

    def _step_bases(self) -> None:
        """One step of every base."""
        for one in self._bases:
            one.step()
