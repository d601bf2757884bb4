"""A model that remembers every message it is to learn from, word for word."""

import re
from collections import Counter
from collections.abc import Callable

from tests.support.llm_server import Received, Reply, calls

_CONVERSATION = re.compile(r"<conversation>(.*)</conversation>", re.DOTALL)
_EARLIER = re.compile(r"<earlier>(.*)</earlier>", re.DOTALL)
_MESSAGE = re.compile(r'<message id="(\d+)"[^>]*>\n(.*?)\n</message>', re.DOTALL)


def learned_from(received: Received) -> list[str]:
    """Return the messages that a request says to learn from."""
    return [text for _, text in _messages(_CONVERSATION, received)]


def shown_as_context(received: Received) -> list[str]:
    """Return the messages that a request shows besides."""
    return [text for _, text in _messages(_EARLIER, received)]


def remembering(delay: float = 0.0) -> Callable[[Received], Reply]:
    """Return a `respond` that makes a memory of each message; no two memories are alike.

    So a message that is learned from twice leads to two memories.
    """
    times: Counter[str] = Counter()

    def respond(received: Received) -> Reply:
        wanted = []
        for number, text in _messages(_CONVERSATION, received):
            times[text] += 1
            content = {"content": f"{text} #{times[text]}"}
            arguments = {"content": content, "importance": 0.5, "message_ids": [number]}
            wanted.append(("insert_memory", arguments))
        reply = calls(*wanted)
        return Reply(reply.text, reply.calls, reply.stop, delay=delay)

    return respond


def _messages(block: re.Pattern[str], received: Received) -> list[tuple[str, str]]:
    found = block.search(received.last_user_text)
    return _MESSAGE.findall(found[1]) if found else []
