"""Questions to a chat model behind an OpenAI-compatible server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pggrpo_cli.scoring.answer_cache import AnswerCache
from pggrpo_cli.scoring.server import Server
from pggrpo_cli.types import ScoreError


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """`request`: what every request says beside the question. With a cache, no question is asked twice."""

    server: Server
    request: Mapping[str, Any]
    cache: AnswerCache | None
    scope: str
    """What the cache's keys hold beside the request: the url."""

    def answers(self, questions: Sequence[str]) -> list[str | ScoreError]:
        """One text a question; the same question is asked once."""
        bodies = {text: self._body(text) for text in questions}
        keys = {text: self._key(body) for text, body in bodies.items()}
        cached = self.cache.get(list(keys.values())) if self.cache is not None else {}
        found: dict[str, str | ScoreError] = {text: cached[key] for text, key in keys.items() if key in cached}
        new = [text for text in bodies if text not in found]

        def keep(news: Sequence[tuple[int, Any]]) -> None:
            """As they come, so that what was paid for is kept if the run is killed."""
            given = {keys[new[place]]: self._text(reply) for place, reply in news}
            words = {key: text for key, text in given.items() if isinstance(text, str)}
            if self.cache is not None and words:
                self.cache.put(words)

        replies = self.server.ask([bodies[text] for text in new], keep)
        found |= {text: self._text(reply) for text, reply in zip(new, replies, strict=True)}
        return [found[text] for text in questions]

    def _body(self, question: str) -> dict[str, Any]:
        return {**self.request, "messages": [{"role": "user", "content": question}]}

    def _key(self, body: Mapping[str, Any]) -> str:
        text = json.dumps([self.scope, body], sort_keys=True)
        return hashlib.blake2b(text.encode("ascii"), digest_size=20).hexdigest()

    def _text(self, reply: Any) -> str | ScoreError:
        if isinstance(reply, ScoreError):
            return reply
        try:
            choice = reply["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            return ScoreError(message=f"{self.server.shown}: the answer is none of a chat: {str(reply)[:80]!r}")
        if not isinstance(content, str):
            why = f" (finish_reason {choice.get('finish_reason')})"
            return ScoreError(message=f"{self.server.shown}: the answer has no text{why}")
        return content.encode("utf-8", "replace").decode()  # half a surrogate pair fits into no file
