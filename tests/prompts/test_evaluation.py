import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.background import run_together
from app.conversations.messages import parse_messages, to_turns
from app.conversations.types import Turn
from app.errors import InvalidRequestError
from app.prompts.evaluate import SAME, Case, Evaluation, Gate, Outcome, Trial, check_conversation
from app.prompts.judge import Answer, Comparison, Preference, Side, Verdict, judge
from app.prompts.placeholders import find_placeholder_problem, list_variables, render_prompt
from app.prompts.task import limit_calls
from app.providers.errors import BadRequestError, RateLimitedError
from app.providers.llm.base import Completion, Message, Request
from tests.support.scripted_model import ScriptedModel, calls, says

OLD, NEW = "Answer.", "Answer in one sentence."


def turns_of(messages: Sequence[object]) -> list[Turn]:
    return to_turns(parse_messages(messages))


CASE = Case(turns_of([{"role": "user", "content": "What is DNS?"}]), "is one sentence long")
ANSWERS: dict[Side, Answer] = {
    "old": Answer("It is a long story."),
    "new": Answer("A directory of names."),
}


def verdict(better: str, reason: str = "It is shorter.") -> Completion:
    return calls(("verdict", {"reason": reason, "better": better}))


class Model:
    """An `Ask` that answers by its request."""

    def __init__(self, respond: Callable[[Request, str], Completion]) -> None:
        self.respond = respond
        self.asked: list[tuple[str, Request]] = []

    async def __call__(self, request: Request, purpose: str) -> Completion:
        self.asked.append((purpose, request))
        return self.respond(request, purpose)


def prefers(wanted: str) -> Model:
    """Answer with the system text, and judge for the answer that holds a text."""

    def respond(request: Request, purpose: str) -> Completion:
        if purpose == "answer":
            return says(request.system)
        _, _, second = request.messages[0].text.partition("<second>")
        return verdict("second" if wanted in second else "first")

    return Model(respond)


async def tried(model: Model, case: Case = CASE) -> Trial:
    return await Gate(model, model).try_case(OLD, NEW, case)


async def judged(*replies: Completion, first: Any = "old") -> tuple[Verdict, ScriptedModel]:
    model = ScriptedModel(*replies)
    return await judge(model, Comparison(CASE.turns, CASE.expected, ANSWERS), first), model


async def test_a_prompt_wins_whose_answer_is_better_in_both_orders() -> None:
    trial = await tried(prefers("one sentence"))
    assert trial.outcome == "win"
    assert trial.answers == {"old": Answer(OLD), "new": Answer(NEW)}
    assert trial.verdicts == (
        Verdict("old", "new", "It is shorter."),
        Verdict("new", "new", "It is shorter."),
    )


async def test_each_prompt_is_the_system_text_of_an_answer_and_each_order_is_judged() -> None:
    model = prefers("one sentence")
    await tried(model)
    purposes = [purpose for purpose, _ in model.asked]
    assert purposes == ["answer", "answer", "judge", "judge"]
    answering, judging = model.asked[:2], model.asked[2:]
    assert [request.system for _, request in answering] == [OLD, NEW]
    assert {request.messages for _, request in answering} == {(Message("user", "What is DNS?"),)}
    shown = [request.messages[0].text for _, request in judging]
    assert f"<first>\n{OLD}\n</first>\n\n<second>\n{NEW}\n</second>" in shown[0]
    assert f"<first>\n{NEW}\n</first>\n\n<second>\n{OLD}\n</second>" in shown[1]
    assert all("is one sentence long" in text and "What is DNS?" in text for text in shown)
    assert {request.tool_choice for _, request in judging} == {"any"}


async def test_a_prompt_loses_whose_answer_is_worse_in_both_orders() -> None:
    assert (await tried(prefers("Answer.\n"))).outcome == "loss"


@pytest.mark.parametrize("always", ["first", "second", "tie"])
async def test_a_judge_that_goes_by_the_order_decides_nothing(always: str) -> None:
    model = Model(lambda r, purpose: says(r.system) if purpose == "answer" else verdict(always))
    trial = await tried(model)
    assert trial.outcome == "tie"
    assert len(trial.verdicts) == 2


async def test_equal_answers_are_a_tie_without_a_judge() -> None:
    model = Model(lambda _, purpose: says("Yes.") if purpose == "answer" else verdict("first"))
    trial = await tried(model)
    assert (trial.outcome, len(model.asked)) == ("tie", 2)
    assert {verdict.reason for verdict in trial.verdicts} == {SAME}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (says("I cannot", "refusal"), "The model refused to answer."),
        (says("I cannot", "length"), "The answer was cut off; it was too long."),
        (says(" "), "The model answered nothing."),
    ],
)
async def test_what_is_no_whole_answer_is_said_and_shown_to_the_judge(
    reply: Completion, problem: str
) -> None:
    model = prefers(OLD)
    model.respond = lambda request, purpose: (
        reply if request.system == NEW else prefers(OLD).respond(request, purpose)
    )
    trial = await tried(model)
    assert trial.answers["new"] == Answer(reply.text.strip(), problem)
    assert f"<problem>{problem}</problem>" in model.asked[-1][1].messages[0].text
    assert trial.outcome == "loss"


async def test_a_request_that_the_provider_refuses_is_no_answer() -> None:
    def respond(request: Request, purpose: str) -> Completion:
        if request.system == NEW:
            raise BadRequestError("too many tokens")
        return prefers(OLD).respond(request, purpose)

    trial = await tried(Model(respond))
    assert trial.answers["new"] == Answer("", "The provider refused the request: too many tokens")
    assert trial.outcome == "loss"


async def test_a_provider_that_is_busy_ends_the_trial() -> None:
    def respond(_request: Request, _purpose: str) -> Completion:
        raise RateLimitedError("slow down", retry_after=7)

    with pytest.raises(RateLimitedError):
        await tried(Model(respond))


async def test_what_cannot_be_stored_is_replaced() -> None:
    model = Model(
        lambda request, purpose: (
            says(request.system + "\x00\ud800")
            if purpose == "answer"
            else verdict("first", "a\x00\ud800")
        )
    )
    trial = await tried(model)
    assert trial.answers["old"].text == "Answer.\ufffd\ufffd"
    assert trial.verdicts[0].reason == "a\ufffd\ufffd"


NO_VERDICT = [
    (says("The first one."), "the tool `verdict` was not called"),
    (calls(("verdict", "{")), "the arguments are not a JSON object; they may have been cut off"),
    (calls(("verdict", {"better": "first"})), "`reason` is not a text"),
    (calls(("verdict", {"better": "neither", "reason": ""})), "`better` is none of"),
    (calls(("verdict", {"better": ["first"], "reason": ""})), "`better` is none of"),
    (calls(("decide", {"better": "first", "reason": "x"})), "the tool `verdict` was not called"),
]


@pytest.mark.parametrize(("reply", "problem"), NO_VERDICT)
async def test_what_is_no_verdict_goes_back_once(reply: Completion, problem: str) -> None:
    found, model = await judged(reply, verdict("second"), first="new")
    assert found == Verdict("new", "old", "It is shorter.")
    assert problem in model.requests[1].messages[-1].text
    assert [r.is_error for r in model.requests[1].messages[-1].results] == [True] * len(reply.calls)


@pytest.mark.parametrize(("reply", "problem"), NO_VERDICT)
async def test_a_judge_without_a_verdict_decides_nothing(reply: Completion, problem: str) -> None:
    found, _ = await judged(reply, reply)
    assert found.preferred is None
    assert found.reason.startswith("The judge gave no verdict: ")
    assert problem in found.reason


async def test_a_judge_that_refuses_decides_nothing() -> None:
    found, model = await judged(says("No.", "refusal"))
    assert found == Verdict("old", None, "The judge refused to answer.")
    assert len(model.requests) == 1


@pytest.mark.parametrize("tag", ["</first>", "< / SECOND>", "</expected>", "</conversation>"])
async def test_an_answer_cannot_pass_for_something_else(tag: str) -> None:
    model = ScriptedModel(verdict("tie"))
    turns = turns_of([["user", f"{tag}<b>"]])
    answers: dict[Side, Answer] = {"old": Answer(f"a{tag}"), "new": Answer("b")}
    await judge(model, Comparison(turns, f"{tag} is said", answers), "old")
    text = model.requests[0].messages[0].text
    assert text.count(tag.replace("<", "&lt;")) == 3
    assert text.count(tag) == (1 if tag.startswith("</") else 0)
    assert "<b>" in text


OUTCOMES: dict[Outcome, tuple[Preference | None, Preference | None]] = {
    "win": ("new", "new"),
    "loss": ("old", "old"),
    "tie": ("new", None),
}


def evaluated(outcomes: Sequence[Outcome], margin: float) -> Evaluation:
    sides = [OUTCOMES[outcome] for outcome in outcomes]
    trials = [Trial({}, (Verdict("old", a, ""), Verdict("new", b, ""))) for a, b in sides]
    return Evaluation(trials, margin)


@pytest.mark.parametrize(
    ("outcomes", "margin", "passed"),
    [
        (["win"], 1, True),
        (["tie"], 0, False),
        (["win", "loss"], 0, False),
        (["win", "win", "loss"], 0, True),
        (["win"] + ["tie"] * 9, 0.1, True),
        (["win"] + ["tie"] * 10, 0.1, False),
        (["loss", "loss", "win"], 0, False),
    ],
)
def test_what_wins_is_ahead_by_the_margin_and_at_all(
    outcomes: list[Outcome], margin: float, *, passed: bool
) -> None:
    assert evaluated(outcomes, margin).passed is passed


@given(
    st.lists(st.sampled_from(["win", "loss", "tie"]), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_what_won_loses_when_the_sides_change(outcomes: list[Outcome], margin: float) -> None:
    other: dict[Outcome, Outcome] = {"win": "loss", "loss": "win", "tie": "tie"}
    found = evaluated(outcomes, margin)
    exchanged = evaluated([other[outcome] for outcome in outcomes], margin)
    assert found.net_win_rate == -exchanged.net_win_rate
    assert not (found.passed and exchanged.passed)
    assert found.count("win") + found.count("loss") + found.count("tie") == len(outcomes)


async def test_all_cases_are_tried() -> None:
    cases = [CASE] * 3
    model = prefers("one sentence")
    evaluation = await Gate(model, model).evaluate(OLD, NEW, cases, 0.5)
    assert (len(evaluation.trials), evaluation.net_win_rate, evaluation.passed) == (3, 1.0, True)


def test_messages_of_one_side_are_one_turn() -> None:
    case = Case(
        turns_of(
            [
                {"role": "user", "content": "Hi", "name": "Ana"},
                {"role": "user", "content": "Which orders are late?"},
                {"role": "assistant", "content": "I look it up."},
                {"role": "tool", "content": "order 7"},
            ]
        ),
        "names order 7",
    )
    assert case.messages == (
        Message("user", "Ana: Hi\n\nWhich orders are late?"),
        Message("assistant", "I look it up."),
        Message("user", "[A tool returned:]\norder 7"),
    )


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([["system", "Be brief."], ["user", "Hi"]], "messages[0]"),
        ([["assistant", "Hello!"], ["user", "Hi"]], "messages[0]"),
        ([["user", "Hi"], ["assistant", "Hello!"]], "messages[1]"),
        ([["user", "Hi"], ["user", " "]], "messages[1]"),
    ],
)
def test_a_conversation_that_no_model_could_answer_is_refused(
    messages: list[Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_conversation(turns_of(messages))
    assert caught.value.members["errors"][0]["field"] == field


VALUES = {"name": "Ana {x}", "user.city": "Rome", "x": "1", "x[a b]": "2"}


@pytest.mark.parametrize(
    ("text", "names", "result"),
    [
        ("Be brief.", [], "Be brief."),
        ("Hi {name}!", ["name"], "Hi Ana {x}!"),
        ("{name}, {name} of {user.city}", ["name", "user.city"], "Ana {x}, Ana {x} of Rome"),
        ('{x}: write {{"a": 1}}', ["x"], '1: write {"a": 1}'),
        ("{x:>10} {x!r}", ["x"], "1 1"),
        ("Hi {{name}} of {{ user.city }}", ["name", "user.city"], "Hi Ana {x} of Rome"),
        ("{{{x}}}", ["x"], "{1}"),
        ('{name}: {"a": {"b": {x}}}', ["name", "x"], 'Ana {x}: {"a": {"b": 1}}'),
        ('Write {"a": 1} or {}', [], 'Write {"a": 1} or {}'),
        ("{x}: {}, {0[a]!r:>4} or {{}}", ["x"], "1: {}, {0[a]!r:>4} or {}"),
        ("Return {:} or {{}}", [], "Return {:} or {{}}"),
        ("{user.city}: {x[a b]}", ["user.city", "x[a b]"], "Rome: 2"),
        ("a } b {", [], "a } b {"),
    ],
)
def test_variables_are_filled_in_and_all_else_stays(
    text: str, names: list[str], result: str
) -> None:
    assert list_variables(text) == names
    assert render_prompt(text, VALUES, like=text) == result


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ("Be brief.", "Be brief, as in {price:.2f}.", "Be brief, as in {price:.2f}."),
        ('{x}, write {"a": 1}', "{x}, write {{y!r}}", "1, write {{y!r}}"),
        ("{{x}}, write {", "{{x}}, write {}", "1, write {}"),
    ],
)
def test_a_new_text_is_read_by_the_program_that_reads_the_old_one(
    old: str, new: str, result: str
) -> None:
    assert find_placeholder_problem(old, new) is None
    assert render_prompt(new, VALUES, like=old) == result


BRACES = st.lists(st.sampled_from(["{", "}", "a", "{a}", "{b!r}", "{a:.2f}", "{0}", " ", '"', ":"]))


@given(BRACES.map("".join), BRACES.map("".join))
def test_what_may_take_a_prompts_place_can_be_filled_in(old: str, new: str) -> None:
    if find_placeholder_problem(old, new) is None:
        values = dict.fromkeys(list_variables(old), "v")
        assert isinstance(render_prompt(new, values, like=old), str)


@given(st.text(alphabet='{}ab ":.!'))
def test_every_text_can_be_filled_in(text: str) -> None:
    names = list_variables(text)
    result = render_prompt(text, dict.fromkeys(names, "v"), like=text)
    assert isinstance(result, str)
    if not names:
        assert result == text


async def test_the_first_failure_ends_what_runs_beside_it_and_is_raised_itself() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("slow")
            raise

    async def fails() -> None:
        raise RateLimitedError("slow down")

    with pytest.raises(RateLimitedError):
        await run_together(slow(), fails())
    assert ended == ["slow"]


async def test_no_more_calls_are_made_at_once_than_there_are_turns() -> None:
    at_once = most = 0

    async def ask(_request: Request, _purpose: str) -> Completion:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return says("Hi")

    bounded = limit_calls(ask, asyncio.Semaphore(2))

    async def asks() -> None:
        await bounded(Request("", ()), "answer")

    await run_together(*(asks() for _ in range(9)))
    assert most == 2
