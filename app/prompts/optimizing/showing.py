"""Prompts and conversations as optimisers are shown them, between tags that no text can forge."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from app.conversations.types import Turn
from app.prompts.optimizing.base import Feedback, Prompt, Trajectory

MAX_CHARACTERS = 400_000
"""Of all conversations together: some 100,000 tokens, which most models can read."""

_FRAME = 64  # about what the tags around a message take
_PROMPT = "current_prompt"

# Every tag that the templates, ours and LangMem's, give a meaning to.
_TAG = re.compile(
    r"<(?=[\s/]*(?:trajector(?:y|ies)|message|feedback|comment|edited_answer|more|current_prompt\w*"
    r"|prompts?|text|update_instructions|when_to_update|hypotheses|recommendations)\b)",
    re.IGNORECASE,
)


def escaped(text: str) -> str:
    """Return the text with `&lt;` where it has one of our tags; all other markup stays as it is."""
    return _TAG.sub("&lt;", text)


def block(tag: str, text: str, **attributes: str) -> str:
    """Return a text, escaped already, between tags."""
    named = "".join(f" {name}={_quoted(value)}" for name, value in attributes.items())
    return "\n".join([f"<{tag}{named}>", *([text] if text else []), f"</{tag}>"])


def tag_of(text: str) -> str:
    """Return the name of a tag that does not occur in a prompt.

    A prompt is shown as it is, not escaped, because the model has to repeat it word for word.
    """
    number, tag = 1, _PROMPT
    while tag in text:
        number += 1
        tag = f"{_PROMPT}_{number}"
    return tag


def shown_prompt(prompt: Prompt) -> str:
    """Return the text of a prompt between tags that it does not contain."""
    return block(tag_of(prompt.text), prompt.text)


def shown_operator(prompt: Prompt) -> str:
    """Return what the operator says about changing a prompt; empty when nothing."""
    said = {
        "when_to_update": prompt.when_to_update,
        "update_instructions": prompt.update_instructions,
    }
    return "\n\n".join(
        block(tag, escaped(text.strip())) for tag, text in said.items() if text and text.strip()
    )


def shown_trajectories(
    trajectories: Sequence[Trajectory], max_characters: int = MAX_CHARACTERS
) -> str:
    """Return the conversations, each with its feedback.

    Where they are too long together, the longest lose their middles, which is said.
    """
    sizes = [_size([turn.text for turn in t.turns]) + _feedback_size(t) for t in trajectories]
    shares = _shares(sizes, max_characters)
    return "\n".join(
        block("trajectory", _trajectory(trajectory, share), id=str(number))
        for number, (trajectory, share) in enumerate(
            zip(trajectories, shares, strict=True), start=1
        )
    )


def shown_feedback(trajectories: Sequence[Trajectory]) -> str:
    """Return the feedback alone, each under the number of its conversation."""
    share = MAX_CHARACTERS // 2 // max(1, len(trajectories))
    return "\n".join(
        block("trajectory", shown, id=str(number))
        for number, trajectory in enumerate(trajectories, start=1)
        if (shown := _feedback(trajectory.feedback, share))
    )


def _trajectory(trajectory: Trajectory, share: int) -> str:
    feedback = _feedback(trajectory.feedback, share // 2)
    messages = "\n".join(_messages(trajectory.turns, share - len(feedback)))
    return f"{messages}\n{feedback}".strip()


def _messages(turns: Sequence[Turn], limit: int) -> Iterator[str]:
    left_out = 0
    texts = _without_middle([escaped(turn.text) for turn in turns], limit)
    for turn, text in zip(turns, texts, strict=True):
        if text is None:
            left_out += 1
            continue
        if left_out:
            yield f"[… {left_out:,} messages left out …]"
            left_out = 0
        attributes = {"from": turn.speaker}
        if turn.role != turn.speaker:
            attributes["role"] = turn.role
        yield block("message", text, **attributes)
    if left_out:
        yield f"[… {left_out:,} messages left out …]"


def _feedback(feedback: Feedback | None, limit: int) -> str:
    """Return what somebody thought of a conversation; empty when nobody said anything."""
    parts = _parts(feedback)
    texts = [escaped(text.strip()) for text in parts.values()]
    shares = _shares([len(text) for text in texts], limit)
    shown = "\n".join(
        block(tag, _cut(text, share)) for tag, text, share in zip(parts, texts, shares, strict=True)
    )
    score = None if feedback is None else feedback.score
    if score is not None:
        return block("feedback", shown, score=f"{score:.10g}")
    return block("feedback", shown) if shown else ""


def _parts(feedback: Feedback | None) -> dict[str, str]:
    if feedback is None:
        return {}
    more = json.dumps(dict(feedback.more), ensure_ascii=False) if feedback.more else None
    parts = {
        "comment": feedback.comment,
        "edited_answer": feedback.edited_answer,
        "more": more,
    }
    return {tag: text for tag, text in parts.items() if text and text.strip()}


def _feedback_size(trajectory: Trajectory) -> int:
    # Twice, because feedback gets at most half of a conversation's share.
    return 2 * _size(_parts(trajectory.feedback).values())


def _size(texts: Iterable[str]) -> int:
    return sum(len(escaped(text)) + _FRAME for text in texts)


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Return how much of each may be shown: all of what is short, and equally much of the rest."""
    shares = [0] * len(sizes)
    for done, place in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[place] = min(sizes[place], limit // (len(sizes) - done))
        limit -= shares[place]
    return shares


def _cut(text: str, limit: int) -> str:
    return _without_middle([text], limit + _FRAME)[0] or ""


def _without_middle(texts: Sequence[str], limit: int) -> list[str | None]:
    """Return the texts without the middle of them all; None for those that lie in it."""
    total = sum(len(text) + _FRAME for text in texts)
    if total <= limit:
        return list(texts)
    kept: list[str | None] = []
    first, last, start = limit // 2, total - limit // 2, 0
    for text in texts:
        end = start + len(text)
        if start >= first and end <= last:
            kept.append(None)
        elif end <= first or start >= last:
            kept.append(text)
        else:
            kept.append(_split(text, max(first - start, 0), min(last - start, len(text))))
        start = end + _FRAME
    return kept


def _split(text: str, begin: int, end: int) -> str:
    return f"{text[:begin]}\n[… {end - begin:,} characters left out …]\n{text[end:]}"


def _quoted(value: str) -> str:
    return json.dumps(escaped(" ".join(value.split())), ensure_ascii=False)
