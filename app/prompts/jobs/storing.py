"""New texts of stored prompts, as versions that wait, or that go into production."""

from dataclasses import dataclass

from app.auth.access import Access
from app.db.database import Connection
from app.prompts import repository
from app.prompts.errors import PromptNotFoundError, PromptVersionNotFoundError
from app.prompts.jobs.improving import Improvement
from app.prompts.jobs.plans import PlannedPrompt
from app.prompts.repository import Ref
from app.prompts.schemas import PRODUCTION
from app.prompts.service import PromptService

GONE = "the prompt was deleted meanwhile, so nothing was stored"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a new text is kept; without `version` it is not, for the `reason`.

    `not_promoted_reason` says why the label production does not point to it.
    """

    version: int | None = None
    labels: tuple[str, ...] = ()
    not_promoted_reason: str | None = None
    reason: str | None = None

    @property
    def promoted(self) -> bool:
        """Whether the text went into production."""
        return self.version is not None and self.not_promoted_reason is None


class PromptWriter:
    """Stores new texts in the transaction that ends a job."""

    def __init__(
        self, prompts: PromptService, connection: Connection, access: Access, *, promote: bool
    ) -> None:
        self._prompts = prompts
        self._connection = connection
        self._access = access
        self._promote = promote

    async def store(self, new: Improvement) -> Stored:
        """Add a version of a stored prompt; promote it if it won and nobody was quicker."""
        name = new.prompt.name
        ref = Ref(self._access.root, name)
        await repository.lock(self._connection, ref)
        if not await self._is_there(new.prompt):
            return Stored(not_promoted_reason=GONE, reason=GONE)
        version = await self._prompts.add_version(
            self._connection,
            self._access,
            name,
            new.text,
            based_on=new.prompt.version,
            analysis=new.analysis,
        )
        labels = await repository.find_labels(self._connection, ref)
        in_production = labels.get(PRODUCTION)
        if in_production == version:  # others had the same text, and promoted it
            objection = None
        elif (objection := self._objection(new, in_production)) is None:
            await self._prompts.promote(self._connection, self._access, name, version=version)
        row = await self._prompts.read(self._connection, self._access, name, version=version)
        return Stored(version, tuple(row["labels"]), objection)

    async def _is_there(self, prompt: PlannedPrompt) -> bool:
        """Tell whether the version that was improved is there, and not one of a namesake."""
        try:
            row = await self._prompts.read(
                self._connection, self._access, prompt.name, version=prompt.version
            )
        except (PromptNotFoundError, PromptVersionNotFoundError):
            return False
        return bool(row["text"] == prompt.text)

    def _objection(self, new: Improvement, in_production: int | None) -> str | None:
        """Return why a stored text does not go into production, or None."""
        if new.evaluation is None:
            return "it was not evaluated"
        if not new.evaluation.passed:
            return "the new text did not win by the margin"
        if not self._promote:
            return "the request says not to promote"
        if in_production is None:
            return "no version is in production, so there is none to replace"
        if in_production != new.prompt.version:
            return (
                f"version {in_production} is in production, and the new text was compared "
                f"with version {new.prompt.version}"
            )
        return None
