"""What a consolidation came to: what is to be written, what is details, what has to be reviewed."""

from dataclasses import dataclass, field, replace
from typing import Any

from app.changes.apply import JobOutcome, Provenance
from app.changes.circuit_breaker import REVIEW_REQUESTED, review_reason
from app.consolidation.batches import Part, StoredMemory
from app.consolidation.plan import ConsolidatePlan
from app.consolidation.repository import Looked
from app.conversations.types import Edit, Rejection
from app.jobs.run import JobRun


@dataclass(slots=True)
class Work:
    """A job under way: what it looks at, what it comes to, and what had to be left out."""

    run: JobRun
    plan: ConsolidatePlan
    looked: Looked
    provenance: Provenance
    parts: list[Part] = field(default_factory=list)
    overtaken: list[Part] = field(default_factory=list)

    @property
    def edits(self) -> list[Edit]:
        """What is to be done."""
        return [replace(edit, basis=part.basis) for part in self.parts for edit in part.edits]

    @property
    def failures(self) -> list[str]:
        """Why batches led to nothing."""
        parts = [*self.parts, *self.overtaken]
        return [part.failure for part in parts if part.failure is not None]

    @property
    def merged(self) -> list[tuple[StoredMemory, StoredMemory]]:
        """Duplicates: the memory that stays and the one that ends."""
        if self.plan.strategy == "llm":
            return []
        return [(part.memories[0], ended) for part in self.parts for ended in part.memories[1:]]

    def outcome(self) -> JobOutcome:
        """Return what to write and to tell."""
        return JobOutcome(
            self.edits,
            self.provenance,
            unchanged=len(self.looked.all) - sum(edit.before is not None for edit in self.edits),
            rejected=self._rejected(),
            review_reason=self._review_reason() if self.edits else None,
            details=self._details(),
        )

    def _rejected(self) -> list[Rejection]:
        rejected = [call for part in [*self.parts, *self.overtaken] for call in part.rejected]
        reason = "a memory it rests on was changed meanwhile"
        overtaken = [edit for part in self.overtaken for edit in part.edits]
        return [*rejected, *(Rejection(edit.action, reason) for edit in overtaken)]

    def _review_reason(self) -> str | None:
        """Return why a person has to look at it; what loses nothing but form is not asked about."""
        config = self.plan.config
        if config.apply == "review":
            return REVIEW_REQUESTED
        return review_reason(
            [edit for part in self.parts for edit in part.edits if edit not in part.formal],
            [memory.existing for memory in self.looked.all],
            singletons={kind.name for kind in config.kinds if kind.singleton},
            max_share=config.max_change_share,
        )

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = {
            "strategy": self.plan.strategy,
            "compared": len(self.looked.all),
            "has_more": self.looked.remaining,
            "follow_up_job_id": None,
        }
        if self.plan.strategy == "llm":
            details["batches"] = len(self.parts) + len(self.overtaken)
            details["failed_batches"] = len(self.failures)
        return details
