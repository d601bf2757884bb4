"""The progress of a consolidation, and its outcome."""

from dataclasses import dataclass, field, replace

from app.changes.apply import JobOutcome, Provenance
from app.changes.circuit_breaker import REVIEW_REQUESTED, review_reason
from app.consolidation.plan import ConsolidatePlan
from app.consolidation.scope import ConsolidationScope, EditGroup, StoredMemory
from app.conversations.types import Edit, Rejection
from app.jobs.kind import JobRun
from app.json_values import JsonObject


@dataclass(slots=True)
class Consolidation:
    """A running job: the compared memories, the edits, and the groups that were overtaken.

    A group is overtaken if one of its memories was changed after the job read it.
    """

    run: JobRun
    plan: ConsolidatePlan
    scope: ConsolidationScope
    provenance: Provenance
    groups: list[EditGroup] = field(default_factory=list)
    overtaken: list[EditGroup] = field(default_factory=list)

    @property
    def edits(self) -> list[Edit]:
        """The edits to apply."""
        return [replace(edit, basis=group.basis) for group in self.groups for edit in group.edits]

    @property
    def failures(self) -> list[str]:
        """The reasons of the batches that failed."""
        groups = [*self.groups, *self.overtaken]
        return [group.failure for group in groups if group.failure is not None]

    @property
    def merged(self) -> list[tuple[StoredMemory, StoredMemory]]:
        """Duplicates that are merged: the memory that stays, and one that ends."""
        if self.plan.strategy == "llm":
            return []
        return [(group.memories[0], ended) for group in self.groups for ended in group.memories[1:]]

    def outcome(self) -> JobOutcome:
        """Return the outcome of the job."""
        return JobOutcome(
            self.edits,
            self.provenance,
            unchanged=len(self.scope.all) - sum(edit.before is not None for edit in self.edits),
            rejected=self._rejected(),
            review_reason=self._review_reason() if self.edits else None,
            details=self._details(),
        )

    def _rejected(self) -> list[Rejection]:
        groups = [*self.groups, *self.overtaken]
        rejected = [rejection for group in groups for rejection in group.rejected]
        reason = "a memory on which it relies has changed"
        overtaken = [edit for group in self.overtaken for edit in group.edits]
        return [*rejected, *(Rejection(edit.action, reason) for edit in overtaken)]

    def _review_reason(self) -> str | None:
        """Return why the edits need a review; those that lose nothing but form need none."""
        config = self.plan.config
        if config.apply == "review":
            return REVIEW_REQUESTED
        return review_reason(
            [e for group in self.groups for e in group.edits if e not in group.formal_edits],
            [stored.memory for stored in self.scope.all],
            singletons=config.singletons,
            max_share=config.max_change_share,
        )

    def _details(self) -> JsonObject:
        details: JsonObject = {
            "strategy": self.plan.strategy,
            "compared": len(self.scope.all),
            "has_more": self.scope.has_more,
            "follow_up_job_id": None,
        }
        if self.plan.strategy == "llm":
            details["batches"] = len(self.groups) + len(self.overtaken)
            details["failed_batches"] = len(self.failures)
        return details
