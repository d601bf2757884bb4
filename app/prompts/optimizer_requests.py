"""Texts sent to models about prompts: prompts and conversations, between tags no text can forge."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal, TypeAlias

from app.conversations.messages import Turn
from app.conversations.prompt_text import Tags, Templates
from app.prompts.texts import is_format_string, list_placeholders
from app.prompts.types import Feedback, TargetPrompt, Trajectory

MAX_CHARACTERS = 400_000
"""Maximum length of all conversations together: about 100,000 tokens, which most models take."""

MAX_OTHERS_CHARACTERS = 50_000
"""Maximum length of the texts of all other prompts together."""

_MAX_CHOICE_CHARACTERS = 2_000  # of the reason, and of each prompt's `when_to_update`
_FRAME = 64  # about the length of the tags around a message
_NOTE = 40  # about the length of the note on omitted characters
_LEAST = 256  # of a long message, so that what stays can be understood
_PROMPT = "current_prompt"

TEMPLATES = Templates("app.prompts")

_TAGS = Tags(  # every tag that the templates, ours and LangMem's, give a meaning to
    *("trajectory", "trajectories", "message", "feedback", "comment", "edited_answer", "more"),
    *(r"current_prompt\w*", "prompt", "prompts", "text", "update_instructions"),
    *("when_to_update", "hypotheses", "recommendations", "other_prompts", "choice_reason"),
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
    if prompt.others and task != "apply":
        parts.append(TEMPLATES.fill("others"))
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
    """Return the prompt and the conversations, and what to do about them if one turn is enough."""
    return join(
        render_prompt_block(prompt),
        render_instructions(prompt),
        _render_choice(prompt),
        block("trajectories", render_trajectories(trajectories)),
        TEMPLATES.fill_section("turns", task) if task == "prompt_memory" else "",
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
    return join(_render_custom(template, values, blocks), _render_choice(prompt))


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


def render_prompts(prompts: Sequence[TargetPrompt]) -> str:
    """Return prompts with their names and the operator's instructions for changing them."""
    return "\n".join(
        block(
            "prompt",
            join(render_instructions(prompt), block("text", escape(prompt.text))),
            {"name": prompt.name},
        )
        for prompt in prompts
    )


def _render_choice(prompt: TargetPrompt) -> str:
    """Return why one of several prompts was chosen, and the others; empty if it is the only one."""
    if not prompt.others:
        return ""
    sizes = [len(escape(other.text)) for other in prompt.others]
    shares = _allot(sizes, MAX_OTHERS_CHARACTERS)
    others = [
        replace(
            other,
            text=cut_middle(other.text, share),
            when_to_update=cut_middle(other.when_to_update or "", _MAX_CHOICE_CHARACTERS),
            update_instructions=None,
        )
        for other, share in zip(prompt.others, shares, strict=True)
    ]
    explanation = TEMPLATES.fill("omissions") if sum(sizes) > MAX_OTHERS_CHARACTERS else ""
    reason = cut_middle(prompt.choice_reason or "", _MAX_CHOICE_CHARACTERS)
    return join(
        block("choice_reason", escape(reason)),
        block("other_prompts", "\n".join(filter(None, (explanation, render_prompts(others))))),
    )


def render_trajectories(
    trajectories: Sequence[Trajectory], max_characters: int = MAX_CHARACTERS
) -> str:
    """Return the conversations, each with its feedback.

    If they are too long together, parts of the longest are left out, with notes. Messages of the
    assistant are left out last, because they are what the reader judges.
    """
    sizes = [_size([turn.text for turn in t.turns]) + _feedback_size(t) for t in trajectories]
    shares = _allot(sizes, max_characters)
    explanation = [TEMPLATES.fill("omissions")] if sum(sizes) > max_characters else []
    return "\n".join(
        explanation
        + [
            block("trajectory", _render_trajectory(trajectory, share), {"id": str(number)})
            for number, (trajectory, share) in enumerate(
                zip(trajectories, shares, strict=True), start=1
            )
        ]
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
    for turn, text in zip(turns, _cut_messages(turns, limit), strict=True):
        if text is None:
            omitted += 1
            continue
        if omitted:
            yield _note_omission(omitted, "message")
            omitted = 0
        attributes = {"from": turn.speaker}
        if turn.role != turn.speaker:
            attributes["role"] = turn.role
        yield block("message", text, attributes)
    if omitted:
        yield _note_omission(omitted, "message")


def _cut_messages(turns: Sequence[Turn], limit: int) -> list[str | None]:
    """Return the escaped texts within a limit, at least half of it for the assistant's.

    None stands for a message that is left out.
    """
    texts: list[str | None] = [escape(turn.text) for turn in turns]
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    others = [place for place, turn in enumerate(turns) if turn.role != "assistant"]
    for places, rest in ((answers, others), (others, [])):
        reserved = min(_size(turns[place].text for place in rest), limit // 2)
        fitted = _fit([texts[place] or "" for place in places], limit - reserved)
        for place, text in zip(places, fitted, strict=True):
            texts[place] = text
        limit -= sum(len(text) + _FRAME for text in fitted if text is not None)
    return texts


def _fit(texts: Sequence[str], limit: int) -> list[str | None]:
    """Return the texts within a limit: if they are too many, None for those in the middle."""
    sizes = [len(text) + _FRAME for text in texts]
    kept = _choose_ends([min(size, _LEAST) for size in sizes], limit)
    shares = _allot([sizes[place] for place in kept], limit)
    fitted: list[str | None] = [None] * len(texts)
    for place, share in zip(kept, shares, strict=True):
        fitted[place] = cut_middle(texts[place], share - _FRAME)
    return fitted


def _choose_ends(sizes: Sequence[int], limit: int) -> list[int]:
    """Return the places of texts that fit, from both ends inward, at least the last one."""
    places = range(len(sizes))
    inward = [place for pair in zip(reversed(places), places, strict=True) for place in pair]
    totals = accumulate(sizes[place] for place in inward)
    fitting = [place for place, total in zip(inward, totals, strict=True) if total <= limit]
    return list(dict.fromkeys((*inward[:1], *fitting)))[: len(sizes)]


def _render_feedback(feedback: Feedback | None, limit: int) -> str:
    """Return the feedback on a conversation; empty if there is none."""
    parts = _feedback_texts(feedback)
    texts = [escape(text.strip()) for text in parts.values()]
    shares = _allot([len(text) for text in texts], limit)
    content = "\n".join(
        block(tag, cut_middle(text, share))
        for tag, text, share in zip(parts, texts, shares, strict=True)
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


def cut_middle(text: str, limit: int) -> str:
    """Return a text without its middle if it is longer than a limit."""
    if len(text) <= limit:
        return text
    half = max(limit - _NOTE, 0) // 2
    end = len(text) - half
    return f"{text[:half]}\n{_note_omission(end - half, 'character')}\n{text[end:]}"


def _note_omission(count: int, noun: str) -> str:
    return f"[… {count:,} {noun}{'' if count == 1 else 's'} left out …]"
