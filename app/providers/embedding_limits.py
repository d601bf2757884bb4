"""The limits of an embedding server, known from its refusals and kept in memory."""

_LEAST_PASSAGE = 256
"""Characters of the shortest passage that is tried: nearly every model reads that much."""


class EmbeddingLimits:
    """Limits and refused features of one embedding model; limits only shrink."""

    def __init__(self, *, texts: int, characters: int) -> None:
        self.texts = texts
        """Maximum texts a request."""
        self.characters = characters
        """Maximum characters a request."""
        self.passage: int | None = None
        """Maximum characters a text; None: not known."""
        self.refused: frozenset[str] = frozenset()
        """Members of a request that the server does not take."""

    def learn_texts(self, texts: int) -> None:
        """Remember how many texts passed in place of more."""
        self.texts = max(1, min(self.texts, texts))

    def learn_characters(self, characters: int) -> None:
        """Remember how many characters passed in place of more."""
        self.characters = max(1, min(self.characters, characters))

    def learn_passage(self, refused: int) -> bool:
        """Remember the length of a text that is too long; return whether half may pass."""
        half = max(_LEAST_PASSAGE, refused // 2)
        if half >= refused:
            return False
        self.passage = half if self.passage is None else min(self.passage, half)
        return True

    def learn_refusal(self, members: frozenset[str]) -> None:
        """Remember members that the server does not take."""
        self.refused |= members
