import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversations.messages import Turn
from app.threads.summary_budget import (
    Budget,
    Message,
    RunningSummary,
    approximate_tokens,
    count_one,
    find_misplaced,
    plan_shortening,
    split_turns,
    to_entries,
    unsummarized,
)


def user(text: str, message_id: str | None = None) -> Message:
    return {"role": "user", "content": text, **({} if message_id is None else {"id": message_id})}


def assistant(text: str, *calls: str) -> Message:
    made = [{"name": "look", "args": {}, "id": call} for call in calls]
    return {"role": "assistant", "content": text, **({"tool_calls": made} if made else {})}


def tool(call: str, text: str = "found") -> Message:
    return {"role": "tool", "content": text, "tool_call_id": call}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def messages_budget(total: int, threshold: int | None = None, summary: int = 1) -> Budget:
    return Budget(total, total if threshold is None else threshold, summary, count_one)


def ids(entries: object) -> list[str]:
    return [entry.id for entry in entries]  # type: ignore[attr-defined]


def planned(
    messages: list[Message], budget: Budget, running: RunningSummary | None = None
) -> tuple[list[str], list[str]]:
    """Return the ids of what goes and of what stays."""
    found = plan_shortening(to_entries(messages, budget.counter), running, budget)
    return ids(found.replaced), ids(found.kept)


def talk(count: int) -> list[Message]:
    return [user(f"Q{i}") if i % 2 == 0 else assistant(f"A{i}") for i in range(count)]


LOOP = [user("Look"), *(m for i in range(4) for m in (assistant("", f"c{i}"), tool(f"c{i}")))]
PARALLEL = [user("Q"), assistant("", "a", "b"), tool("a"), tool("b"), assistant("A"), user("R")]
BLOCKS: list[Message] = [
    user("Q"),
    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look"}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]},
    assistant("A"),
    user("R"),
]
SAME_IDS = [
    *(user("Q"), assistant("", "call_0"), tool("call_0"), assistant("A")),
    *(user("R"), assistant("", "call_0"), tool("call_0"), assistant("B"), user("S")),
]


@pytest.mark.parametrize(
    ("messages", "budget", "replaced", "kept"),
    [
        (talk(9), messages_budget(6, threshold=1), "1234", "56789"),
        (
            [user("Hello"), assistant("Hi"), user("x" * 4_000)],
            *(Budget(100, 100, 20, approximate_tokens), "12", "3"),
        ),
        (
            [user("Hello world!"), assistant("Bye bye world!")],
            *(Budget(20, 10, 5, approximate_tokens), "", "12"),
        ),
        (
            [user("Old"), assistant("Answer"), user("Look"), assistant("", "a"), tool("a")],
            *(messages_budget(4, threshold=5), "12", "345"),
        ),
        (LOOP, messages_budget(4), "234567", "189"),
        *((PARALLEL, messages_budget(6, threshold), "1234", "56") for threshold in (2, 3, 4)),
        (BLOCKS, messages_budget(5, threshold=2), "123", "45"),
        (SAME_IDS, messages_budget(9, threshold=3), "123", "456789"),
        (
            [user("Q"), assistant("", "a"), user("R"), user("S")],
            *(messages_budget(3, 2), "12", "34"),
        ),
    ],
    ids=[
        *("no more than the budget asks", "a long last message", "fits", "tools at work"),
        *("the question stays", "parallel 2", "parallel 3", "parallel 4"),
        *("Anthropic's blocks", "ids used again", "a call without a result"),
    ],
)
def test_the_oldest_messages_are_replaced_and_calls_stay_with_results(
    messages: list[Message], budget: Budget, replaced: str, kept: str
) -> None:
    assert planned(messages, budget) == (list(replaced), list(kept))


def test_the_model_reads_the_question_that_stays_until_it_is_replaced() -> None:
    loop = [user("Look"), assistant("", "a"), tool("a"), assistant("", "b"), tool("b")]
    budget = messages_budget(4, threshold=1)
    found = plan_shortening(to_entries(loop, count_one), None, budget)
    assert ids(found.read) == ["1", "2", "3"]
    assert ids(found.replaced) == ["2", "3"]
    later = [user("Look"), assistant("", "a"), tool("a"), assistant("Done"), user("Next")]
    running = RunningSummary("Looked.", ("2", "3"), "3")
    assert planned(later, messages_budget(3, threshold=1), running) == (["1"], ["4", "5"])


def test_a_system_message_takes_room_and_stays() -> None:
    found = plan_shortening(
        to_entries([system("Be kind."), *talk(9)], count_one), None, messages_budget(6)
    )
    assert ids(found.replaced) == ["2", "3", "4", "5", "6", "7"]
    running = RunningSummary("Short.", tuple(ids(found.replaced)), "7")
    summary = "Summary of the conversation so far: Short."
    shown = [m["content"] for m in found.result(running)]
    assert shown == ["Be kind.", summary, "Q6", "A7", "Q8"]


SUMMARY = RunningSummary("Short.", ("1", "2"), "2")


@pytest.mark.parametrize(
    "prompt",
    [
        [system("Be kind."), SUMMARY.message()],
        [system(f"Be kind.\n\n{SUMMARY.message()['content']}")],
    ],
)
def test_an_old_summary_that_is_sent_back_is_shown_once(prompt: list[Message]) -> None:
    sent_back = [*prompt, user("Next", "7")]
    found = plan_shortening(to_entries(sent_back, count_one), SUMMARY, messages_budget(9))
    summary = "Summary of the conversation so far: Short."
    assert [m["content"] for m in found.result(SUMMARY)] == ["Be kind.", summary, "Next"]


def test_a_message_is_found_that_a_summary_covers_twice() -> None:
    again = to_entries([user("a", "0"), user("b", "2"), user("c", "1")], count_one)
    found = find_misplaced(again, SUMMARY)
    assert found is not None
    assert found.id == "1"
    assert find_misplaced(again[:2], SUMMARY) is None


steps = st.lists(st.sampled_from(["user", "assistant", "one call", "two calls"]), max_size=14)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    found: list[Message] = []
    for number, step in enumerate(draw(steps)):
        text = "x" * draw(st.integers(0, 60))
        if step == "user":
            found.append(user(text))
        elif step == "assistant":
            found.append(assistant(text))
        else:
            calls = [f"{number}a", f"{number}b"][: 1 if step == "one call" else 2]
            found += [assistant(text, *calls), *(tool(call, text) for call in calls)]
    prompt = [system("Be kind.")] if draw(st.booleans()) else []
    return [{**m, "id": f"m{i}"} for i, m in enumerate([*prompt, *found])]


budgets = st.builds(
    lambda counter, total, more, threshold: Budget(total + more, threshold, total, counter),
    st.sampled_from([count_one, approximate_tokens]),
    st.integers(1, 20),
    st.integers(1, 60),
    st.integers(0, 80),
)


@st.composite
def running_summaries(draw: st.DrawFn, messages: list[Message]) -> RunningSummary | None:
    taken_in = [m["id"] for m in messages if m["role"] != "system"]
    covered = taken_in[: draw(st.integers(0, len(taken_in)))]
    return RunningSummary("What was.", tuple(covered), covered[-1]) if covered else None


@given(st.data(), conversations(), budgets)
def test_no_message_is_lost_or_doubled_and_the_order_stays(
    data: st.DataObject, messages: list[Message], budget: Budget
) -> None:
    entries = to_entries(messages, budget.counter)
    running = data.draw(running_summaries(messages))
    found = plan_shortening(entries, running, budget)
    fresh = [e.id for e in unsummarized(entries, running) if not e.is_system]
    assert sorted([*ids(found.replaced), *ids(found.kept)]) == sorted(fresh)
    assert ids(found.replaced) == [i for i in fresh if i in set(ids(found.replaced))]
    assert ids(found.kept) == [i for i in fresh if i in set(ids(found.kept))]
    assert set(ids(found.replaced)) <= set(ids(found.read)) <= set(fresh)


@given(conversations(), budgets)
def test_calls_are_never_parted_from_their_results(messages: list[Message], budget: Budget) -> None:
    found = plan_shortening(to_entries(messages, budget.counter), None, budget)
    called = {call for entry in found.replaced for call in entry.calls}
    answered = {call for entry in found.replaced for call in entry.results}
    assert called == answered


@given(conversations(), budgets)
def test_the_newest_message_of_the_user_is_never_summed_up(
    messages: list[Message], budget: Budget
) -> None:
    entries = to_entries(messages, budget.counter)
    newest = [entry.id for entry in entries if entry.is_from_user][-1:]
    assert set(newest) <= set(ids(plan_shortening(entries, None, budget).kept))


@given(st.data(), conversations(), budgets)
def test_the_result_fits_the_budget_where_that_is_possible(
    data: st.DataObject, messages: list[Message], budget: Budget
) -> None:
    entries = to_entries(messages, budget.counter)
    running = data.draw(running_summaries(messages))
    found = plan_shortening(entries, running, budget)
    fresh = [entry for entry in unsummarized(entries, running) if not entry.is_system]
    shown = budget.cost(running.message()) if running else 0
    always = found.system.cost if found.system else 0
    least = always + sum([entry.cost for entry in fresh if entry.is_from_user][-1:])
    over_threshold = sum(entry.cost for entry in fresh) >= budget.threshold
    if over_threshold and least + max(budget.summary, shown) <= budget.total:
        summary = budget.summary if found.replaced else shown
        assert always + summary + sum(entry.cost for entry in found.kept) <= budget.total


@given(conversations(), budgets)
def test_going_on_from_a_result_reaches_every_message_once(
    messages: list[Message], budget: Budget
) -> None:
    first = plan_shortening(to_entries(messages, budget.counter), None, budget)
    running = RunningSummary("What was.", (), None)
    if first.replaced:
        running = running.extended("What was.", first.replaced)
    more = [user("More", "n1"), assistant("Fine"), user("Last", "n3")]
    more[1]["id"] = "n2"
    sent_whole = plan_shortening(to_entries([*messages, *more], budget.counter), running, budget)
    sent_back = plan_shortening(
        to_entries([*first.result(running), *more], budget.counter), running, budget
    )
    for found in (sent_whole, sent_back):
        everything = [*ids(first.replaced), *ids(found.replaced), *ids(found.kept)]
        if found.system:
            everything.append(found.system.id)
        assert sorted(everything) == sorted(m["id"] for m in [*messages, *more])


@given(st.lists(st.text("ab \n", max_size=40), max_size=12), st.integers(min_value=1, max_value=30))
def test_parts_hold_every_character_in_order_and_have_room(
    texts: list[str], characters: int
) -> None:
    turns = [Turn(str(i), "user", text) for i, text in enumerate(texts)]
    found = split_turns(turns, characters)
    pieces = [piece for part in found for piece in part]
    assert all(sum(len(piece.text) for piece in part) <= characters for part in found)
    for turn in turns:
        assert "".join(piece.text for piece in pieces if piece.id == turn.id) == turn.text
    assert [piece.id for piece in pieces] == sorted((p.id for p in pieces), key=int)
