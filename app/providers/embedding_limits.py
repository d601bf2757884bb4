"""The limits of an embedding server, known from its refusals."""

from app.providers.capabilities import Capabilities, ServedModel
from app.providers.errors import ProviderError

_LEAST_PASSAGE = 256
"""Characters of the shortest passage that is tried: nearly every model reads that much."""

_TEXTS, _CHARACTERS, _PASSAGE = "embedding_texts", "embedding_characters", "passage_characters"

OPTIONAL_MEMBERS = ("encoding_format", "dimensions")
"""Members of a request that some servers do not take."""


class EmbeddingLimits:
    """Limits and refused members of one embedding model; limits only shrink, until forgotten.

    `texts` and `characters` are the limits of a request while none is known.
    """

    def __init__(
        self, capabilities: Capabilities, model: ServedModel, *, texts: int, characters: int
    ) -> None:
        self._capabilities = capabilities
        self._model = model
        self._most_texts = texts
        self._most_characters = characters

    @property
    def texts(self) -> int:
        """Maximum texts a request."""
        return min(self._most_texts, self._known(_TEXTS) or self._most_texts)

    @property
    def characters(self) -> int:
        """Maximum characters a request."""
        return min(self._most_characters, self._known(_CHARACTERS) or self._most_characters)

    @property
    def passage(self) -> int | None:
        """Maximum characters a text; None: not known."""
        return self._known(_PASSAGE)

    @property
    def refused(self) -> frozenset[str]:
        """Members of a request that the server does not take."""
        refuses = self._capabilities.refuses
        return frozenset(name for name in OPTIONAL_MEMBERS if refuses(self._model, name))

    def learn_texts(self, texts: int, error: ProviderError) -> None:
        """Remember how many texts passed in place of more."""
        if texts < self.texts:
            self._learn(_TEXTS, error, texts)

    def learn_characters(self, characters: int, error: ProviderError) -> None:
        """Remember how many characters passed in place of more."""
        if characters < self.characters:
            self._learn(_CHARACTERS, error, characters)

    def learn_passage(self, refused: int, error: ProviderError) -> None:
        """Remember that a text of this length is too long: half of it is tried next."""
        half = max(_LEAST_PASSAGE, refused // 2)
        if half < refused and (self.passage is None or half < self.passage):
            self._learn(_PASSAGE, error, half)

    def learn_refusal(self, members: frozenset[str], error: ProviderError | None) -> None:
        """Remember members that the server does not take."""
        for member in members - self.refused:
            self._learn(member, error, None)

    def _known(self, feature: str) -> int | None:
        return self._capabilities.limit(self._model, feature)

    def _learn(self, feature: str, error: ProviderError | None, limit: int | None) -> None:
        reason = "" if error is None else str(error)
        self._capabilities.learn(self._model, feature, limit=limit, reason=reason)
