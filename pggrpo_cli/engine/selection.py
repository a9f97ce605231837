"""From logits to the next token: temperature, truncation, a keyed draw, and the log-probability of what was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pggrpo_cli.engine.draws import TOP_TOKENS, keyed_categorical


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """temperature 0 is greedy; top_p 1, top_k 0 and min_p 0 are off."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float

    @property
    def truncates(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    def choose(self, logits: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """logits [B, V] float32 (overwritten), keys int64 [B] → tokens int64 [B], logprobs float32 [B].

        The log-probability is of softmax(logits / temperature) before any truncation (of softmax(logits) if greedy):
        the trainer's own distribution.
        """
        if self.temperature > 0:
            logits = logits.div_(self.temperature)
        logprobs = logits.log_softmax(1)
        if self.temperature == 0:
            tokens = logprobs.argmax(1)
        elif self.truncates:
            tokens = keyed_categorical(self._truncated(logprobs).log_softmax(1), keys)
        else:
            tokens = keyed_categorical(logprobs, keys)
        return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)

    def _truncated(self, logprobs: torch.Tensor) -> torch.Tensor:
        """[B, V] with −inf where top_k, then top_p (of what top_k left), then min_p remove a token, as transformers does.

        Only the largest tokens are sorted; all of them in the rare step in which a nucleus reaches beyond.
        """
        vocabulary = logprobs.shape[1]
        count = min(max(self.top_k, TOP_TOKENS), vocabulary)
        while True:
            top, ids = logprobs.topk(count, dim=1)
            kept = torch.ones_like(top, dtype=torch.bool)
            mass = torch.zeros_like(top[:, 0])
            if self.top_k > 0:
                kept[:, self.top_k :] = False
                mass = top[:, : self.top_k].logsumexp(1)
            probabilities = (top - mass[:, None]).exp()
            if self.top_p < 1:
                before = probabilities.cumsum(1) - probabilities
                kept &= before < self.top_p
            if self.min_p > 0:
                kept &= top - top[:, :1] >= torch.tensor(self.min_p).log()
            if count == vocabulary or not bool(kept[:, -1].any()):
                break
            count = vocabulary
        return torch.full_like(logprobs, float("-inf")).scatter_(1, ids, top.masked_fill(~kept, float("-inf")))
