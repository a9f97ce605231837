"""An optimizer's state as named tensors and JSON, and back, bit for bit.

Keyed by the parameter's name, not by its position: the order of a model's parameters may change, its names may not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from pggrpo_cli.errors import CheckpointError

NamedParameters = Iterable[tuple[str, torch.Tensor]]


def optimizer_state(
    optimizer: torch.optim.Optimizer, named_parameters: NamedParameters
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by "<parameter>/<key>" (the 0-d `step` too), and JSON: {"param_groups": […], "values": {…}}.

    A group's "params" are names. "values" holds what an optimizer keeps of a parameter that is no tensor.
    """
    names = {id(parameter): name for name, parameter in named_parameters}
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{key}"] = value.detach()
            else:
                values.setdefault(name, {})[key] = value
    groups = [
        {key: value for key, value in group.items() if key not in ("params", "param_names")}
        | {"params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    return tensors, {"param_groups": groups, "values": values}


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    named_parameters: NamedParameters,
    tensors: Mapping[str, torch.Tensor],
    groups: Mapping[str, Any],
    keep: Collection[str] = (),
) -> None:
    """Puts back what `optimizer_state` gave, into an optimizer built anew. `keep`: keys of the groups (such as "lr")
    that stay as built, because the user changed them.

    Not by Optimizer.load_state_dict, which casts every tensor to its parameter's dtype. Raises CheckpointError if the
    state is of other parameters.
    """
    parameters = dict(named_parameters)
    names = {id(parameter): name for name, parameter in parameters.items()}
    built = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    saved = [group["params"] for group in groups["param_groups"]]
    if [sorted(one) for one in built] != [sorted(one) for one in saved]:
        differing = sorted({name for one in built for name in one} ^ {name for one in saved for name in one})
        what = f"{', '.join(differing[:4])} are not in both" if differing else "they are grouped differently"
        raise CheckpointError(
            f"`optimizer`: the checkpoint's optimizer has other parameters ({what}). Resume with the model and the "
            "optimizer of the run."
        )
    on_device: set[str] = set()
    for group, saved_group in zip(optimizer.param_groups, groups["param_groups"], strict=True):
        group.update({key: value for key, value in saved_group.items() if key != "params" and key not in keep})
        if group.get("fused") or group.get("capturable"):
            on_device |= set(saved_group["params"])
    optimizer.state.clear()
    for name, values in groups["values"].items():
        optimizer.state[parameters[name]].update(values)
    for full_name, tensor in tensors.items():
        name, _, key = full_name.partition("/")
        if name not in parameters:
            raise CheckpointError(f"`optimizer`: the checkpoint has a state of {name}, which the model has not.")
        # Optimizers that are neither fused nor capturable count their steps on the CPU, whatever the parameter's device.
        device = parameters[name].device if key != "step" or name in on_device else torch.device("cpu")
        optimizer.state[parameters[name]][key] = tensor.to(device, copy=True)
