"""The effect of the questions that memories answer on searches: a run with and without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.client import HttpClient
from benchmarks.formation.conversations import Conversation, Question
from benchmarks.formation.memoryd import PAGE

CUTS = (1, 3, 5, 10)


@dataclass(frozen=True, slots=True)
class QuestionEffect:
    """Shares of the evidence among the first results, by the number of results."""

    with_questions: dict[int, float]
    without: dict[int, float]

    def as_table(self) -> str:
        """Return the shares as a Markdown table."""
        rows = [("with questions", self.with_questions), ("without", self.without)]
        heads = " | ".join(f"recall@{cut}" for cut in CUTS)
        lines = [f"| | {heads} |", f"| --- {'| --- ' * len(CUTS)}|"]
        lines += [
            f"| {name} | {' | '.join(f'{shares[cut]:.3f}' for cut in CUTS)} |"
            for name, shares in rows
        ]
        return "\n".join(lines)


async def compare(client: HttpClient, name: str, conversation: Conversation) -> QuestionEffect:
    """Compare a finished run's namespace with a copy of it that has no questions."""
    namespace, copy = ["formation", name], ["formation-without-questions", name]
    body = {"namespace_prefix": namespace, "limit": PAGE}
    items = (await client.call("POST", "/v1/store/items/search", body))["items"]
    for item in items:
        put = {"namespace": copy, "key": item["key"], "value": item["value"]}
        await client.call("PUT", "/v1/store/items", put)
    evidence = {i["key"]: set((i["source"] or {}).get("message_ids", [])) for i in items}
    asked = [question for question in conversation.questions if question.evidence]
    return QuestionEffect(
        await _recall(client, namespace, asked, evidence),
        await _recall(client, copy, asked, evidence),
    )


async def _recall(
    client: HttpClient,
    namespace: list[str],
    questions: Sequence[Question],
    evidence: dict[str, set[str]],
) -> dict[int, float]:
    totals = dict.fromkeys(CUTS, 0.0)
    for question in questions:
        body: dict[str, Any] = {
            "namespace_prefix": namespace,
            "query": question.text,
            "limit": max(CUTS),
        }
        found = (await client.call("POST", "/v1/store/items/search", body))["items"]
        for cut in CUTS:
            covered = set[str]().union(*(evidence[item["key"]] for item in found[:cut]))
            totals[cut] += len(covered & set(question.evidence)) / len(question.evidence)
    return {cut: total / len(questions) for cut, total in totals.items()}
