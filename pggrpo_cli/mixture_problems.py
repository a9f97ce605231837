"""What can be wrong with a mixture and with a mixed sampler before any class of theirs is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pggrpo_cli.suggestions import did_you_mean

MIXTURE = "pggrpo_cli.data.mixture.Mixture"
HOW = "add them like +data@data.sources.sums=chain_sum, see docs/data.md"


def mixture_problems(values: Mapping[str, Any]) -> Iterator[str]:
    data = values.get("data")
    if not isinstance(data, Mapping) or data.get("_target_") != MIXTURE:
        return
    sources, weights = data.get("sources"), data.get("weights")
    if not isinstance(sources, Mapping) or not isinstance(weights, Mapping):
        return  # their types are looked at with all others
    if not sources:
        yield f"`data.sources`: there are none; {HOW}."
    for name, node in sources.items():
        yield from _source_problems(str(name), node)
    for name, weight in weights.items():
        if name not in sources:
            yield (
                f"`data.weights.{name}`: there is no such source.{did_you_mean(str(name), map(str, sources))} "
                f"The sources: {', '.join(map(str, sources)) or 'none'}."
            )
        elif isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            yield (
                f"`data.weights.{name}`: {weight!r} is no weight; allowed is a number > 0. To leave a source out: "
                f"~data.sources.{name}."
            )


def _source_problems(name: str, node: Any) -> Iterator[str]:
    key = f"data.sources.{name}"
    if not re.fullmatch(r"[\w-]+", name):
        yield f"`{key}`: {name!r} becomes part of the names of metrics; allowed are letters, digits, _ and -."
    if not isinstance(node, Mapping):
        yield f"`{key}`: is no source; {HOW}."
    elif not isinstance(node.get("_target_"), str):
        yield f"`{key}`: names no class (_target_); {HOW}."
    elif node["_target_"] == MIXTURE:
        yield f"`{key}`: is a mixture within a mixture; list its sources in data.sources."


def sampler_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """A sampler within the sampler has the same keys as the outer one where both have them."""
    outer = values.get("sampler")
    inner = outer.get("online") if isinstance(outer, Mapping) else None
    if not isinstance(outer, Mapping) or not isinstance(inner, Mapping):
        return
    for name in ("group_size", "max_new_tokens", "temperature"):
        if name in outer and name in inner and outer[name] != inner[name]:
            yield (
                f"`sampler.online.{name}`: {inner[name]} is not sampler.{name}={outer[name]}, which holds for all that is "
                f"sampled; set sampler.{name} alone."
            )
