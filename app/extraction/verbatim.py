"""Messages stored verbatim, without a model; their keys keep them from being stored twice."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.changes.reconcile import Reconciliation
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.types import Edit, Memory, Turn
from app.extraction.plan import ExtractPlan
from app.json_values import JsonObject
from app.namespaces import StoredNamespace


def build_edits(plan: ExtractPlan, turns: Sequence[Turn], namespace: StoredNamespace) -> list[Edit]:
    """Return inserts of the messages to extract from, except empty and system messages.

    The key of a message with an id in a thread is made of both. Other keys are made of the text,
    its position in the thread, and its number among equal ones in this request: a conversation
    that is sent again, and may have grown, leads to the same keys.
    """
    repeats: Counter[str] = Counter()
    edits = []
    for index, turn in enumerate(turns[plan.context_messages :], start=plan.context_messages):
        if turn.role == "system" or not turn.text.strip():
            continue
        content = _content(turn)
        identity = _identity(plan, index, content)
        repeats[identity] += 1
        edits.append(
            Edit(
                memory_id=turn.id,
                namespace=namespace,
                key=_digest([identity, repeats[identity]]),
                kind=MESSAGE_KIND,
                content=content,
                valid_from=turn.said_at,
                message_ids=(turn.id,),
            )
        )
    return edits


def leave_out_stored(edits: Sequence[Edit], existing: Mapping[str, Memory]) -> Reconciliation:
    """Return the edits without those of messages that are stored already, by their keys."""
    rest: dict[str, Edit] = {}
    for edit in edits:
        before = existing.get(edit.key or "")
        if before is None:
            rest[edit.key or ""] = edit
        elif before.content != edit.content:
            rest[edit.key or ""] = replace(edit, before=before)
    return Reconciliation(rest, unchanged=len(edits) - len(rest))


def _content(turn: Turn) -> JsonObject:
    named = {} if turn.speaker == turn.role else {"name": turn.speaker}
    return {"role": turn.role, "text": turn.text, **named}


def _identity(plan: ExtractPlan, index: int, content: JsonObject) -> str:
    message_id = plan.messages[index].id
    if plan.thread_id is not None and message_id is not None:
        return _digest([plan.thread_id, message_id])
    position = None if plan.position is None else plan.position + index
    return _digest([plan.thread_id, message_id, position, content])


def _digest(parts: list[Any]) -> str:
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
