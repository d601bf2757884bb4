"""Messages as items, without a model: each under a key of its own, so never twice."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.changes.reconcile import Reconciled
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.types import Edit, Memory, Turn
from app.extraction.plan import ExtractPlan
from app.namespaces import StoredNamespace


def message_edits(
    plan: ExtractPlan, turns: Sequence[Turn], namespace: StoredNamespace
) -> list[Edit]:
    """Return the items of the messages to learn from that say something, the system's left out.

    The key of a message with an id in a thread is made of both. Other keys are made of what is
    said, where in the thread, and for how often it is said in this request: a conversation that
    is sent again, and perhaps goes on, leads to the same keys.
    """
    said: Counter[str] = Counter()
    edits = []
    for index, turn in enumerate(turns[plan.context_messages :], start=plan.context_messages):
        if turn.role == "system" or not turn.text.strip():
            continue
        content = _content(turn)
        identity = _identity(plan, index, content)
        said[identity] += 1
        edits.append(
            Edit(
                memory_id=turn.id,
                namespace=namespace,
                key=_digest([identity, said[identity]]),
                kind=MESSAGE_KIND,
                content=content,
                valid_from=turn.said_at,
                message_ids=(turn.id,),
            )
        )
    return edits


def against(edits: Sequence[Edit], existing: Mapping[str, Memory]) -> Reconciled:
    """Return what is left to do where some of the items, by their keys, are there already."""
    left: dict[str, Edit] = {}
    for edit in edits:
        before = existing.get(edit.key or "")
        if before is None:
            left[edit.key or ""] = edit
        elif before.content != edit.content:
            left[edit.key or ""] = replace(edit, before=before)
    return Reconciled(left, unchanged=len(edits) - len(left))


def _content(turn: Turn) -> dict[str, Any]:
    named = {} if turn.speaker == turn.role else {"name": turn.speaker}
    return {"role": turn.role, "text": turn.text, **named}


def _identity(plan: ExtractPlan, index: int, content: dict[str, Any]) -> str:
    message_id = plan.messages[index].id
    if plan.thread_id is not None and message_id is not None:
        return _digest([plan.thread_id, message_id])
    position = None if plan.position is None else plan.position + index
    return _digest([plan.thread_id, message_id, position, content])


def _digest(parts: list[Any]) -> str:
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
