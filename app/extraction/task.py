"""Jobs of the kind `extract`: memories from a conversation, or its messages stored verbatim."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self, TypeAlias
from uuid import uuid4

from app.changes.apply import ChangeApplier, InSameTransaction, JobOutcome, Provenance
from app.changes.duplicates import DuplicateFoundError
from app.changes.reconcile import REVIEW_REQUESTED, Reconciliation, reconcile, review_reason
from app.conversations.kinds import MESSAGE_KIND
from app.conversations.memories import Edit, LLMTask, Memory, Proposal, Rejection
from app.conversations.messages import Turn, to_turns
from app.conversations.secret_scan import SecretCounts, scan_proposal, scan_turns
from app.db.database import Connection
from app.extraction.division import propose_in_phases
from app.extraction.plan import Config, ExtractPlan, RequestMemory
from app.extraction.prompt import PROMPT_VERSION
from app.extraction.retrieval import Retriever, ShownMemories
from app.http.headers import PreconditionFailedError
from app.jobs.kind import JobConflictError, JobRun
from app.json_values import JsonObject
from app.namespaces import StoredNamespace, to_stored
from app.resources import Resources

_ATTEMPTS = 3
"""Maximum attempts while other clients change the same memories; then the job is postponed."""


Conclude: TypeAlias = Callable[[Connection, int], Awaitable[None]]
"""Further statements of the transaction that ends a job, given how many messages it read."""


@dataclass(frozen=True, slots=True)
class _Extraction:
    """An extraction into a namespace."""

    run: JobRun
    plan: ExtractPlan
    turns: Sequence[Turn]
    labels: list[str]
    conclude: Conclude | None

    @property
    def namespace(self) -> StoredNamespace:
        """The stored namespace."""
        return to_stored(self.labels, self.run.job.access.root)

    def in_transaction(self, read: int) -> InSameTransaction | None:
        """Return the further statements after `read` messages were read."""
        conclude = self.conclude
        return None if conclude is None else lambda connection: conclude(connection, read)

    def provenance(self, model: str | None, read: int) -> Provenance:
        """Return the provenance of the memories of the first `read` messages after the context."""
        first, context = self.plan.position, self.plan.context_messages
        positions = {} if first is None else {t.id: first + n for n, t in enumerate(self.turns)}
        return Provenance(
            job_id=self.run.job.id,
            model=model,
            prompt_version=None if model is None else PROMPT_VERSION,
            manager=self.plan.manager,
            thread_id=self.plan.thread_id,
            positions=positions,
            turns=self.turns[: context + read],
            context_turns=context,
            ttl_seconds=self.plan.config.ttl_seconds,
        )


class Extractor:
    """Extracts memories from conversations."""

    def __init__(self, resources: Resources, retriever: Retriever, applier: ChangeApplier) -> None:
        self._database = resources.database
        self._llms = resources.llms
        self._retriever = retriever
        self._applier = applier
        self._habits = resources.habits
        self._clock = resources.clock
        self._secrets = resources.settings.secrets

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the extractor from a process's resources."""
        return cls(resources, Retriever.build(resources), ChangeApplier.build(resources))

    async def extract(
        self, run: JobRun, plan: ExtractPlan, *, conclude: Conclude | None = None
    ) -> None:
        """Run a plan and end the job, in one transaction with `conclude`.

        With `conclude`, the job may end after a part of the messages: another must read the rest.
        """
        turns = to_turns(plan.messages)
        if plan.namespace is None:
            await self._return_memories(run, plan, turns)
            return
        extraction = _Extraction(run, plan, turns, plan.namespace, conclude)
        for number in range(1, _ATTEMPTS + 1):
            try:
                if plan.config.strategy == "verbatim":
                    await self._store_messages(extraction)
                else:
                    await self._store_memories(extraction, number)
            except PreconditionFailedError:
                continue  # an item has changed since it was read; read again
            return
        raise JobConflictError(f"Others changed the same memories, {_ATTEMPTS} times in a row.")

    async def _store_memories(self, extraction: _Extraction, number: int) -> None:
        run, plan = extraction.run, extraction.plan
        config = plan.config
        shown = await self._retriever.find(
            run.job.access,
            extraction.labels,
            config,
            extraction.turns,
            context_messages=plan.context_messages,
            ask=run.asking(self._llms.get(config.query_model)) if config.query_model else None,
        )
        keys = {memory.id: memory.key for memory in shown.memories}
        await run.report("retrieved", existing=len(keys), all=shown.are_all, keys=keys)
        resumes = extraction.conclude is not None
        proposal, secrets = await self._propose(run, plan, extraction.turns, shown, resumes=resumes)
        model = self._llms.get(config.model).name
        outcome = JobOutcome(
            edits=(),
            provenance=extraction.provenance(model, proposal.read),
            rejected=proposal.rejected,
            details={
                "model": model,
                "prompt_version": PROMPT_VERSION,
                "rounds": number,
                **secrets.members(),
                **({"messages_read": proposal.read} if resumes else {}),
            },
        )
        await self._apply(extraction, shown.memories, proposal, outcome)

    async def _apply(
        self,
        extraction: _Extraction,
        existing: Sequence[Memory],
        proposal: Proposal,
        outcome: JobOutcome,
    ) -> None:
        """Write the edits, reconciled with the memories that they would duplicate."""
        known = list(existing)
        for _ in range(_ATTEMPTS):
            reconciled = await asyncio.to_thread(
                reconcile,
                proposal.edits,
                known,
                namespace=extraction.namespace,
                singletons=extraction.plan.config.singletons,
            )
            complete = replace(
                outcome,
                edits=_rest_deletes_on_updates(list(reconciled.edits.values())),
                repeated=reconciled.repeated,
                unchanged=reconciled.unchanged,
                review_reason=_review_reason(
                    extraction.plan.config, reconciled, existing, outcome.provenance
                ),
            )
            try:
                conclude = extraction.in_transaction(proposal.read)
                await self._applier.apply(extraction.run, complete, in_transaction=conclude)
            except DuplicateFoundError as error:
                known += error.memories
            else:
                return
        raise JobConflictError("Others wrote the same memories at the same time.")

    async def _store_messages(self, extraction: _Extraction) -> None:
        run = extraction.run
        context = extraction.plan.context_messages
        scanned, secrets = await asyncio.to_thread(
            scan_turns, extraction.turns[context:], self._secrets
        )
        turns = [*extraction.turns[:context], *scanned]
        edits = build_message_edits(extraction.plan, turns, extraction.namespace)
        keys = [edit.key or "" for edit in edits]
        existing = await self._retriever.find_at(run.job.access, extraction.namespace, keys)
        await run.report("retrieved", existing=len(existing))
        reconciled = leave_out_stored_messages(edits, existing)
        provenance = extraction.provenance(None, len(scanned))
        outcome = JobOutcome(
            edits=list(reconciled.edits.values()),
            provenance=provenance,
            unchanged=reconciled.unchanged,
            review_reason=_review_reason(
                extraction.plan.config, reconciled, [*existing.values()], provenance
            ),
            checks_duplicates=False,
            details=secrets.members(),
        )
        conclude = extraction.in_transaction(len(scanned))
        await self._applier.apply(run, outcome, in_transaction=conclude)

    async def _return_memories(self, run: JobRun, plan: ExtractPlan, turns: Sequence[Turn]) -> None:
        existing = to_memories(plan.existing)
        shown = ShownMemories(existing, are_all=True)
        proposal, secrets = await self._propose(run, plan, turns, shown)
        reconciled = await asyncio.to_thread(
            reconcile, proposal.edits, existing, singletons=plan.config.singletons
        )
        result: JsonObject = {
            **build_returned_result(plan.existing, reconciled, proposal.rejected),
            "model": self._llms.get(plan.config.model).name,
            "prompt_version": PROMPT_VERSION,
            "rounds": 1,
            **secrets.members(),
        }
        async with self._database.transaction(run.job.access.root) as connection:
            await run.finish(connection, result)

    async def _propose(
        self,
        run: JobRun,
        plan: ExtractPlan,
        turns: Sequence[Turn],
        shown: ShownMemories,
        *,
        resumes: bool = False,
    ) -> tuple[Proposal, SecretCounts]:
        llm = self._llms.get(plan.config.model)
        habit, may_be_retried = self._habits.get(llm.name), not run.job.is_last_attempt
        tasks = (
            replace(
                task,
                habit=habit,
                may_be_retried=may_be_retried,
                existing_are_all=shown.are_all,
            )
            for task in _tasks(plan, turns, self._clock.now())
        )
        asked = run.asking(llm)
        proposal = await propose_in_phases(asked, tasks, shown.memories, resumes=resumes)
        self._habits.learn(llm.name, proposal.habit)
        proposal, secrets = await asyncio.to_thread(scan_proposal, proposal, self._secrets)
        rejected = len(proposal.rejected)
        await run.report("proposed", changes=len(proposal.edits), rejected=rejected)
        return proposal, secrets


def _tasks(plan: ExtractPlan, turns: Sequence[Turn], now: datetime) -> list[LLMTask]:
    """Return the tasks of the model: the extraction, then the manager's phases."""
    config = plan.config
    extraction = LLMTask(
        turns=turns,
        existing=(),
        kinds=config.kinds,
        rights=config.rights,
        instructions=config.instructions,
        max_steps=config.max_steps,
        now=now,
        context_turns=plan.context_messages,
        with_questions=config.questions and plan.namespace is not None,
    )
    phases = (
        replace(
            extraction,
            turns=turns if phase.include_messages else (),
            rights=phase.rights,
            instructions=phase.instructions,
            context_turns=plan.context_messages if phase.include_messages else 0,
        )
        for phase in config.phases
    )
    return [extraction, *phases]


class ExtractHandler:
    """Runs jobs of the kind `extract`."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the handler from a process's resources."""
        return cls(Extractor.build(resources))

    async def run(self, run: JobRun, plan: ExtractPlan) -> None:
        """Extract memories as planned."""
        await self._extractor.extract(run, plan)


def _rest_deletes_on_updates(edits: Sequence[Edit]) -> list[Edit]:
    """Return edits whose deletes require the updates, which may keep the deleted content."""
    updated = [edit.before for edit in edits if edit.action == "update" and edit.before]
    basis = tuple(
        (memory.namespace, memory.key or "", memory.version or 0)
        for memory in updated
        if memory.namespace is not None
    )
    return [replace(edit, basis=basis) if edit.action == "delete" else edit for edit in edits]


def _review_reason(
    config: Config, reconciled: Reconciliation, shown: Sequence[Memory], provenance: Provenance
) -> str | None:
    """Return why the edits have to wait for a review; None if they do not."""
    if reconciled.edits and config.apply == "review":
        return REVIEW_REQUESTED
    written = [edit for edit in reconciled.edits.values() if edit.content is not None]
    sources = {provenance.class_of(edit) for edit in written}
    if reviewed := [source for source in config.review_sources if source in sources]:
        return f"Memories from these kinds of sources are reviewed: {', '.join(reviewed)}."
    return review_reason(
        reconciled.edits.values(),
        shown,
        singletons=config.singletons,
        max_share=config.max_change_share,
    )


def build_message_edits(
    plan: ExtractPlan, turns: Sequence[Turn], namespace: StoredNamespace
) -> list[Edit]:
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
        content = _message_content(turn)
        identity = _message_identity(plan, index, content)
        repeats[identity] += 1
        edits.append(
            Edit(
                memory_id=turn.id,
                namespace=namespace,
                key=_message_digest([identity, repeats[identity]]),
                kind=MESSAGE_KIND,
                content=content,
                message_ids=(turn.id,),
            )
        )
    return edits


def leave_out_stored_messages(
    edits: Sequence[Edit], existing: Mapping[str, Memory]
) -> Reconciliation:
    """Return the edits without those of messages that are stored already, by their keys."""
    rest: dict[str, Edit] = {}
    for edit in edits:
        before = existing.get(edit.key or "")
        if before is None:
            rest[edit.key or ""] = edit
        elif before.content != edit.content:
            rest[edit.key or ""] = replace(edit, before=before)
    return Reconciliation(rest, unchanged=len(edits) - len(rest))


def _message_content(turn: Turn) -> JsonObject:
    named = {} if turn.speaker == turn.role else {"name": turn.speaker}
    return {"role": turn.role, "text": turn.text, **named}


def _message_identity(plan: ExtractPlan, index: int, content: JsonObject) -> str:
    message_id = plan.messages[index].id
    if plan.thread_id is not None and message_id is not None:
        return _message_digest([plan.thread_id, message_id])
    position = None if plan.position is None else plan.position + index
    return _message_digest([plan.thread_id, message_id, position, content])


def _message_digest(parts: list[object]) -> str:
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def to_memories(memories: Sequence[RequestMemory]) -> list[Memory]:
    """Return the memories of a request with short ids, in order."""
    return [
        Memory(f"m{number}", memory.kind, memory.content)
        for number, memory in enumerate(memories, start=1)
    ]


def build_returned_result(
    memories: Sequence[RequestMemory], reconciled: Reconciliation, rejected: Sequence[Rejection]
) -> JsonObject:
    """Return the result: every memory in its new state, those of the request first."""
    edits = reconciled.edits
    present: list[JsonObject] = []
    deleted: list[str] = []
    for existing, memory in zip(to_memories(memories), memories, strict=True):
        edit = edits.get(existing.id)
        if edit is not None and edit.action == "delete":
            deleted.append(memory.id)
        else:
            change = "updated" if edit else "unchanged"
            present.append(_memory_to_json(memory.id, edit or existing, change))
    inserts = reconciled.inserts.values()
    present += [_memory_to_json(uuid4().hex, edit, "inserted") for edit in inserts]
    return {
        "counts": {
            "inserted": len(inserts),
            "updated": sum(memory["change"] == "updated" for memory in present),
            "deleted": len(deleted),
            "unchanged": reconciled.unchanged,
            "rejected": len(rejected),
        },
        "rejected": [rejection.members() for rejection in rejected],
        "memories": present,
        "deleted": deleted,
    }


def _memory_to_json(memory_id: str, memory: Memory | Edit, change: str) -> JsonObject:
    return {
        "id": memory_id,
        "kind": memory.kind,
        "content": memory.content,
        "importance": memory.importance,
        "valid_from": memory.valid_from and str(memory.valid_from),
        "change": change,
    }
