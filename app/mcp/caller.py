"""On whose behalf a client of MCP is served, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mcp.server.context import ServerRequestContext

from app.auth.access import Access, Verb
from app.resources import Resources

DEFAULT_NAMESPACE = ("memories",)
"""Where memories are kept when neither the connection nor the model says where."""

Context: TypeAlias = ServerRequestContext
"""What the SDK tells of a request."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client: what its key may do, and the namespace that its connection is confined to."""

    resources: Resources
    access: Access
    namespace: tuple[str, ...] = ()

    @property
    def confined(self) -> Access:
        """The access that sees only the connection's namespace, with labels relative to it."""
        return self.access.below(self.namespace)

    @property
    def default_namespace(self) -> Sequence[str]:
        """Where memories are kept unless the model says otherwise, as the model would name it."""
        return () if self.namespace else DEFAULT_NAMESPACE

    def place(self, labels: Sequence[str]) -> list[str]:
        """Return labels as the key knows them: what writes and jobs take."""
        return [*self.namespace, *labels]

    def readable(self) -> list[list[str]]:
        """Return the outermost namespaces that may be read."""
        outermost: list[tuple[str, ...]] = []
        for prefix in sorted(g.prefix for g in self.confined.grants if Verb.READ in g.verbs):
            if not outermost or prefix[: len(outermost[-1])] != outermost[-1]:
                outermost.append(prefix)
        return [list(prefix) for prefix in outermost]
