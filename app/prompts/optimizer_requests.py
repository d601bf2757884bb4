"""Texts sent to models about prompts: prompts and conversations, between tags no text can forge."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from app.conversations.messages import Turn
from app.conversations.prompt_text import Tags, Templates
from app.prompts.texts import is_format_string, list_placeholders
from app.prompts.types import Feedback, TargetPrompt, Trajectory

MAX_CHARACTERS = 400_000
"""Maximum length of all conversations together: about 100,000 tokens, which most models take."""

_FRAME = 64  # about the length of the tags around a message
_PROMPT = "current_prompt"

TEMPLATES = Templates("app.prompts")

_TAGS = Tags(  # every tag that the templates, ours and LangMem's, give a meaning to
    *("trajectory", "trajectories", "message", "feedback", "comment", "edited_answer", "more"),
    *(r"current_prompt\w*", "prompt", "prompts", "text", "update_instructions"),
    *("when_to_update", "hypotheses", "recommendations"),
)

Task: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory", "apply"]

_PARTS: Mapping[Task, Sequence[str]] = {
    "gradient": ("gradient", "material", "evidence", "editing"),
    "metaprompt": ("metaprompt", "material", "evidence", "editing"),
    "prompt_memory": ("prompt_memory", "material", "evidence", "editing"),
    "apply": ("apply", "editing"),
}
_CUSTOM = ("own", "material")


def render_system(task: Task, prompt: TargetPrompt, custom_request: str | None = None) -> str:
    """Return the system text for a task.

    A custom request says itself how to go about the task; then only the rules for every request
    are sent: how material is marked, how placeholders are kept, how a prompt is returned.
    """
    names = _PARTS[task] if custom_request is None else _CUSTOM
    parts = [TEMPLATES.fill(name) for name in names]
    if custom_request is None and render_instructions(prompt):
        parts.append(TEMPLATES.fill("operator"))
    parts.append(render_placeholder_rule(prompt.text))
    if task != "gradient":
        parts.append(TEMPLATES.fill("whole"))
    return join(*parts)


def render_placeholder_rule(text: str) -> str:
    """Return the rules for keeping the placeholders of a prompt."""
    names = list_placeholders(text)
    return join(
        "# Variables in the prompt",
        TEMPLATES.fill_section("placeholders", "some", placeholders=", ".join(names))
        if names
        else TEMPLATES.fill_section("placeholders", "none"),
        TEMPLATES.fill_section("placeholders", "format" if is_format_string(text) else "plain"),
    )


def render_request(task: Task, prompt: TargetPrompt, trajectories: Sequence[Trajectory]) -> str:
    """Return the prompt, the conversations, and the instruction to begin."""
    return join(
        render_prompt_block(prompt),
        render_instructions(prompt),
        block("trajectories", render_trajectories(trajectories)),
        TEMPLATES.fill_section("turns", task),
    )


def render_custom_request(
    template: str, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
) -> str:
    """Return a user's own request about conversations, with LangMem's variables filled in."""
    values = {
        "prompt": prompt.text,
        "trajectories": render_trajectories(trajectories),
        "feedback": render_all_feedback(trajectories),
        "update_instructions": prompt.update_instructions or "",
    }
    blocks = {
        "prompt": render_prompt_block(prompt),
        "trajectories": block("trajectories", values["trajectories"]),
    }
    return _render_custom(template, values, blocks)


def render_apply_request(prompt: TargetPrompt, hypotheses: str, recommendations: str) -> str:
    """Return the prompt and the changes to make in it."""
    return join(
        render_prompt_block(prompt),
        render_instructions(prompt),
        block("hypotheses", escape(hypotheses)),
        block("recommendations", escape(recommendations)),
        TEMPLATES.fill_section("turns", "apply"),
    )


def render_custom_apply_request(
    template: str, prompt: TargetPrompt, hypotheses: str, recommendations: str
) -> str:
    """Return a user's own request to change a prompt, with LangMem's variables filled in."""
    values = {
        "current_prompt": prompt.text,
        "hypotheses": escape(hypotheses),
        "recommendations": escape(recommendations),
        "update_instructions": prompt.update_instructions or "",
    }
    blocks = {
        "current_prompt": render_prompt_block(prompt),
        "recommendations": block("recommendations", values["recommendations"]),
    }
    return _render_custom(template, values, blocks)


def fill_custom_template(template: str, values: Mapping[str, str]) -> str:
    """Return a user's own template with `{variable}` replaced if the variable is known.

    All other braces, including `{{variable}}` and braces in the values, are text.
    """
    return _pattern_of(values).sub(lambda found: values[found[1] or found[2]], template)


def _render_custom(template: str, values: Mapping[str, str], blocks: Mapping[str, str]) -> str:
    """Return a user's own request; required blocks that it has no variable for are appended."""
    missing = [text for name, text in blocks.items() if not _pattern_of([name]).search(template)]
    return join(fill_custom_template(template, values), *missing)


def _pattern_of(names: Iterable[str]) -> re.Pattern[str]:
    known = rf"\{{({'|'.join(map(re.escape, names))})\}}"
    return re.compile(rf"(?<!\{{){known}|{known}(?!\}})")


def join(*parts: str) -> str:
    """Return the parts that are not blank, as paragraphs."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def escape(text: str) -> str:
    """Return the text with `&lt;` for the `<` of each of our tags; all other markup stays."""
    return _TAGS.escape(text)


def block(tag: str, text: str, attributes: Mapping[str, str] | None = None) -> str:
    """Return a text that is already escaped between tags; attributes are escaped here."""
    return _TAGS.block(
        tag, text, {name: escape(value) for name, value in (attributes or {}).items()}
    )


def choose_tag(text: str) -> str:
    """Return the name of a tag that does not occur in a prompt.

    A prompt is sent as it is, not escaped, because the model has to repeat it word for word.
    """
    number, tag = 1, _PROMPT
    while tag in text:
        number += 1
        tag = f"{_PROMPT}_{number}"
    return tag


def render_prompt_block(prompt: TargetPrompt) -> str:
    """Return the text of a prompt between tags that it does not contain."""
    return block(choose_tag(prompt.text), prompt.text)


def render_instructions(prompt: TargetPrompt) -> str:
    """Return the operator's instructions for changing a prompt; empty if there are none."""
    texts = {
        "when_to_update": prompt.when_to_update,
        "update_instructions": prompt.update_instructions,
    }
    return "\n\n".join(
        block(tag, escape(text.strip())) for tag, text in texts.items() if text and text.strip()
    )


def render_trajectories(
    trajectories: Sequence[Trajectory], max_characters: int = MAX_CHARACTERS
) -> str:
    """Return the conversations, each with its feedback.

    If they are too long together, the middles of the longest are left out, with a note.
    """
    sizes = [_size([turn.text for turn in t.turns]) + _feedback_size(t) for t in trajectories]
    shares = _allot(sizes, max_characters)
    return "\n".join(
        block("trajectory", _render_trajectory(trajectory, share), {"id": str(number)})
        for number, (trajectory, share) in enumerate(
            zip(trajectories, shares, strict=True), start=1
        )
    )


def render_all_feedback(trajectories: Sequence[Trajectory]) -> str:
    """Return the feedback alone, each under the number of its conversation."""
    share = MAX_CHARACTERS // 2 // max(1, len(trajectories))
    return "\n".join(
        block("trajectory", text, {"id": str(number)})
        for number, trajectory in enumerate(trajectories, start=1)
        if (text := _render_feedback(trajectory.feedback, share))
    )


def _render_trajectory(trajectory: Trajectory, share: int) -> str:
    feedback = _render_feedback(trajectory.feedback, share // 2)
    messages = "\n".join(_render_messages(trajectory.turns, share - len(feedback)))
    return f"{messages}\n{feedback}".strip()


def _render_messages(turns: Sequence[Turn], limit: int) -> Iterator[str]:
    omitted = 0
    texts = _cut_middle([escape(turn.text) for turn in turns], limit)
    for turn, text in zip(turns, texts, strict=True):
        if text is None:
            omitted += 1
            continue
        if omitted:
            yield f"[… {omitted:,} messages left out …]"
            omitted = 0
        attributes = {"from": turn.speaker}
        if turn.role != turn.speaker:
            attributes["role"] = turn.role
        yield block("message", text, attributes)
    if omitted:
        yield f"[… {omitted:,} messages left out …]"


def _render_feedback(feedback: Feedback | None, limit: int) -> str:
    """Return the feedback on a conversation; empty if there is none."""
    parts = _feedback_texts(feedback)
    texts = [escape(text.strip()) for text in parts.values()]
    shares = _allot([len(text) for text in texts], limit)
    content = "\n".join(
        block(tag, _cut(text, share)) for tag, text, share in zip(parts, texts, shares, strict=True)
    )
    score = None if feedback is None else feedback.score
    if score is not None:
        return block("feedback", content, {"score": f"{score:.10g}"})
    return block("feedback", content) if content else ""


def _feedback_texts(feedback: Feedback | None) -> dict[str, str]:
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
    return 2 * _size(_feedback_texts(trajectory.feedback).values())


def _size(texts: Iterable[str]) -> int:
    return sum(len(escape(text)) + _FRAME for text in texts)


def _allot(sizes: Sequence[int], limit: int) -> list[int]:
    """Return how much of each may be sent: all of the short ones, equal shares for the rest."""
    shares = [0] * len(sizes)
    for done, place in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[place] = min(sizes[place], limit // (len(sizes) - done))
        limit -= shares[place]
    return shares


def _cut(text: str, limit: int) -> str:
    return _cut_middle([text], limit + _FRAME)[0] or ""


def _cut_middle(texts: Sequence[str], limit: int) -> list[str | None]:
    """Return the texts without the middle of the whole; None for texts that lie entirely in it."""
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
            kept.append(_omit(text, max(first - start, 0), min(last - start, len(text))))
        start = end + _FRAME
    return kept


def _omit(text: str, begin: int, end: int) -> str:
    return f"{text[:begin]}\n[… {end - begin:,} characters left out …]\n{text[end:]}"
