"""Outcomes of an optimize job: new versions in the registry, and the job's result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from app.auth.access import Access
from app.db.database import Connection
from app.json_values import JsonObject
from app.prompts import repository
from app.prompts.errors import PromptNotFoundError, PromptVersionNotFoundError
from app.prompts.evaluate import Evaluation, Trial
from app.prompts.plan import PlannedPrompt
from app.prompts.repository import Ref
from app.prompts.service import PromptService
from app.prompts.types import PRODUCTION

DELETED = "the prompt was deleted during the job, so nothing was stored"
NOT_STORED = "the prompt came with the request, so nothing is stored"

Outcome: TypeAlias = Literal["improved", "not_warranted", "not_chosen", "rejected"]


@dataclass(frozen=True, slots=True)
class Improvement:
    """Outcome for one prompt; `text` is the new one, or the old one if nothing changes.

    `diff` has the changed lines in unified format.
    """

    prompt: PlannedPrompt
    outcome: Outcome
    text: str
    analysis: str | None = None
    reason: str | None = None
    diff: str = ""
    evaluation: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class StoredText:
    """The version with a new text; if `version` is None, `reason` says why nothing was stored.

    `not_promoted_reason` says why the label production does not point to the version.
    """

    version: int | None = None
    labels: Sequence[str] = ()
    not_promoted_reason: str | None = None
    reason: str | None = None

    @property
    def promoted(self) -> bool:
        """True if the text went into production."""
        return self.version is not None and self.not_promoted_reason is None


class TextWriter:
    """Stores new texts in the transaction that ends a job."""

    def __init__(
        self, prompts: PromptService, connection: Connection, access: Access, *, promote: bool
    ) -> None:
        self._prompts = prompts
        self._connection = connection
        self._access = access
        self._promote = promote

    async def store(self, new: Improvement) -> StoredText:
        """Add a version to a stored prompt; promote it if it passed and production is the same."""
        name = new.prompt.name
        ref = Ref(self._access.root, name)
        await repository.lock(self._connection, ref)
        if not await self._exists(new.prompt):
            return StoredText(not_promoted_reason=DELETED, reason=DELETED)
        version = await self._prompts.add_version(
            self._connection,
            self._access,
            name,
            new.text,
            based_on=new.prompt.version,
            analysis=new.analysis,
        )
        labels = await repository.find_labels(self._connection, ref)
        production = labels.get(PRODUCTION)
        if production == version:  # another request has promoted the same text
            objection = None
        elif (objection := self._objection(new, production)) is None:
            await self._prompts.promote(self._connection, self._access, name, version=version)
        stored = await self._prompts.read(self._connection, self._access, name, version=version)
        return StoredText(version, stored.labels, objection)

    async def _exists(self, prompt: PlannedPrompt) -> bool:
        """Return whether the improved version exists, not in a new prompt of the same name."""
        try:
            stored = await self._prompts.read(
                self._connection, self._access, prompt.name, version=prompt.version
            )
        except (PromptNotFoundError, PromptVersionNotFoundError):
            return False
        return stored.text == prompt.text

    def _objection(self, new: Improvement, production: int | None) -> str | None:
        """Return why a stored text does not go into production; None if it does."""
        if new.evaluation is None:
            return "it was not evaluated"
        if not new.evaluation.passed:
            return "the new text did not win by the margin"
        if not self._promote:
            return "the request says not to promote"
        if production is None:
            return "no version is in production, so there is none to replace"
        if production != new.prompt.version:
            return (
                f"version {production} is in production, and the new text was compared "
                f"with version {new.prompt.version}"
            )
        return None


def to_result(new: Improvement, stored: StoredText | None) -> JsonObject:
    """Return the result for one prompt; `stored` is None if there was nothing to store."""
    return {
        "name": new.prompt.name,
        "outcome": new.outcome,
        "changed": new.text != new.prompt.text,
        "text": new.text,
        "analysis": new.analysis,
        "reason": stored.reason if stored and stored.reason else new.reason,
        "diff": new.diff,
        "based_on": new.prompt.version,
        "version": stored and stored.version,
        "labels": list(stored.labels) if stored else [],
        "evaluation": new.evaluation
        and {
            **_evaluation(new.evaluation),
            "promoted": bool(stored and stored.promoted),
            "not_promoted_reason": stored.not_promoted_reason if stored else NOT_STORED,
        },
    }


def _evaluation(evaluation: Evaluation) -> JsonObject:
    return {
        "cases_won": evaluation.count("win"),
        "cases_lost": evaluation.count("loss"),
        "cases_tied": evaluation.count("tie"),
        "net_win_rate": evaluation.net_win_rate,
        "margin": evaluation.margin,
        "passed": evaluation.passed,
        "cases": [_trial(trial) for trial in evaluation.trials],
    }


def _trial(trial: Trial) -> JsonObject:
    return {
        "outcome": trial.outcome,
        "answers": {side: asdict(answer) for side, answer in trial.answers.items()},
        "verdicts": [asdict(verdict) for verdict in trial.verdicts],
    }
