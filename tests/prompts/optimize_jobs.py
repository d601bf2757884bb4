"""Jobs that improve prompts, by their route; and a model that does what a test says."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2

from app.job_kinds import handlers
from app.resources import Resources
from tests.support.jobs import settled, worker_of, working
from tests.support.llm_server import Received, Reply, calls, says

JSON = dict[str, Any]

URL = "/v1/jobs/optimize-prompt"
TALK: JSON = {
    "messages": [["user", "What is DNS?"], ["assistant", "A long story. It begins in 1983."]],
    "feedback": {"score": 0.2, "comment": "Too long."},
}
CASE: JSON = {"messages": [["user", "What is NTP?"]], "expected": "Is one sentence long."}


def model(
    better: Callable[[str], str] | str = str,
    *,
    chosen: list[str] | None = None,
    judge: Callable[[str, str], str] | None = None,
    meets: bool = True,
    failures: Sequence[JSON] = (),
    delay: float = 0,
) -> Callable[[Received], Reply]:
    """Return a `respond` that improves, answers with the system text, and judges.

    `better` makes a text of the prompt's, or is the text itself; a text that stays the same is
    not warranted. `judge` is given both answers and says which one is better;
    with `meets`, it says that the better one does all that is expected. `failures` are those that
    it finds when it is asked for the coverage.
    """

    def respond(received: Received) -> Reply:
        offered = {tool.name for tool in received.tools}
        return Reply(**{**_reply(received, offered).__dict__, "delay": delay})

    def _reply(received: Received, offered: set[str]) -> Reply:
        if "choose" in offered:
            return calls(("choose", {"reasoning": "Only these.", "which": chosen}))
        if "verdict" in offered:
            first, second = answers_in(received)
            wanted = judge(first, second) if judge else "tie"
            verdict = {"reason": f"{wanted} is better", "better": wanted, "meets_expected": meets}
            return calls(("verdict", verdict))
        if "coverage" in offered:
            return calls(("coverage", {"failures": list(failures)}))
        if not offered:
            return says(received.system)
        return calls(improving(received, offered, better))

    return respond


def improving(
    received: Received, offered: set[str], better: Callable[[str], str] | str
) -> tuple[str, JSON]:
    """Return the call by which each kind of optimizer goes on."""
    text = better if isinstance(better, str) else better(prompt_in(received))
    if "recommend" in offered:
        return "recommend", {
            "hypotheses": "Too long.",
            "warrants_adjustment": bool(text),
            "full_recommendations": "Ask for one sentence." if text else None,
        }
    if "improve" in offered:
        return "improve", {"analysis": "Made it short.", "improved_prompt": text}
    if "revise" in offered:
        made = {"logic": "Made it short.", "update_prompt": bool(text), "new_prompt": text}
        return "revise", made
    return "think", {"thought": "Hm."}


def prompt_in(received: Received) -> str:
    """Return the prompt that a model is shown."""
    shown = " ".join(message.text for message in received.messages)
    return shown.partition("<current_prompt>\n")[2].partition("\n</current_prompt>")[0]


def answers_in(received: Received) -> tuple[str, str]:
    """Return the two answers that a judge is shown."""
    shown = received.messages[0].text
    first = shown.partition("<first>\n")[2].partition("\n</first>")[0]
    second = shown.partition("<second>\n")[2].partition("\n</second>")[0]
    return first, second


def likes(wanted: str) -> Callable[[str, str], str]:
    """Return a judge who prefers the answer that holds a text."""

    def judge(first: str, second: str) -> str:
        liked = [name for name, text in (("first", first), ("second", second)) if wanted in text]
        return liked[0] if len(liked) == 1 else "tie"

    return judge


class OptimizeJobs:
    """The routes, and a worker that does the jobs; every call asserts what it expects."""

    def __init__(self, client: httpx2.AsyncClient, resources: Resources) -> None:
        self.client = client
        self.resources = resources
        self._handlers = handlers(resources)

    def working(self) -> AbstractAsyncContextManager[None]:
        """Let a worker work until the end of the block."""
        return working(worker_of(self.resources, self._handlers))

    async def put(
        self, name: str, text: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        body = {"text": text, **more}
        response = await self.client.put(f"/v1/prompts/{name}", json=body, headers=headers)
        assert response.status_code in {200, 201}, response.text

    async def get(self, name: str, *, status: int = 200, **query: Any) -> JSON:
        response = await self.client.get(f"/v1/prompts/{name}", params=query)
        assert response.status_code == status, response.text
        answer: JSON = response.json()
        return answer

    async def submit(
        self, *, status: int = 202, headers: dict[str, str] | None = None, **body: Any
    ) -> JSON:
        sent = {"trajectories": [TALK], **body}
        response = await self.client.post(URL, json=sent, headers=headers)
        assert response.status_code == status, response.text
        answer: JSON = response.json()
        return answer

    async def job(self, **body: Any) -> JSON:
        """Return a job that was done."""
        return await self.done((await self.submit(**body))["id"])

    async def done(self, job_id: str) -> JSON:
        """Return a job once it has ended."""
        async with self.working():
            await settled(self.resources.database, job_id, 60)
        job: JSON = (await self.client.get(f"/v1/jobs/{job_id}")).json()
        return job

    async def results(self, **body: Any) -> list[JSON]:
        """Return the outcome for each prompt."""
        job = await self.job(**body)
        assert job["state"] == "succeeded", job["error"]
        found: list[JSON] = job["result"]["prompts"]
        return found

    async def result(self, **body: Any) -> JSON:
        """Return the outcome for the only prompt."""
        [found] = await self.results(**body)
        return found
