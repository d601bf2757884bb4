import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversations.messages import Turn
from app.threads.summaries.shorten import (
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


def test_a_lower_threshold_makes_no_more_go_than_the_budget_asks() -> None:
    gone, _ = planned(talk(9), messages_budget(6, threshold=1))
    assert gone == ["1", "2", "3", "4"]


def test_the_newest_message_of_the_user_stays_where_it_alone_is_too_long() -> None:
    long = [user("Hello"), assistant("Hi"), user("x" * 4_000)]
    assert planned(long, Budget(100, 100, 20, approximate_tokens)) == (["1", "2"], ["3"])


def test_a_short_conversation_over_the_threshold_stays_as_it_is_while_it_fits() -> None:
    short = [user("Hello world!"), assistant("Bye bye world!")]
    assert planned(short, Budget(20, 10, 5, approximate_tokens)) == ([], ["1", "2"])


def test_the_users_question_stays_while_tools_are_at_work() -> None:
    working = [user("Old"), assistant("Answer"), user("Look"), assistant("", "a"), tool("a")]
    assert planned(working, messages_budget(4, threshold=5)) == (["1", "2"], ["3", "4", "5"])


def test_the_users_question_stays_although_later_messages_go() -> None:
    loop = [user("Look"), *(m for i in range(4) for m in (assistant("", f"c{i}"), tool(f"c{i}")))]
    gone, kept = planned(loop, messages_budget(4))
    assert gone == ["2", "3", "4", "5", "6", "7"]
    assert kept == ["1", "8", "9"]


def test_what_the_model_reads_has_the_question_that_stays() -> None:
    loop = [user("Look"), assistant("", "a"), tool("a"), assistant("", "b"), tool("b")]
    budget = messages_budget(4, threshold=1)
    found = plan_shortening(to_entries(loop, count_one), None, budget)
    assert ids(found.read) == ["1", "2", "3"]
    assert ids(found.replaced) == ["2", "3"]


def test_a_question_that_stayed_is_summed_up_when_it_is_no_longer_the_newest() -> None:
    loop = [user("Look"), assistant("", "a"), tool("a"), assistant("Done"), user("Next")]
    running = RunningSummary("Looked.", ("2", "3"), "3")
    assert planned(loop, messages_budget(3, threshold=1), running) == (["1"], ["4", "5"])


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_parallel_calls_go_with_all_their_results(threshold: int) -> None:
    parallel = [user("Q"), assistant("", "a", "b"), tool("a"), tool("b"), assistant("A"), user("R")]
    gone, kept = planned(parallel, messages_budget(6, threshold))
    assert gone == ["1", "2", "3", "4"]
    assert kept == ["5", "6"]


def test_calls_and_results_in_anthropics_blocks_stay_together() -> None:
    blocks: list[Message] = [
        user("Q"),
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]},
        assistant("A"),
        user("R"),
    ]
    assert planned(blocks, messages_budget(5, threshold=2)) == (["1", "2", "3"], ["4", "5"])


def test_ids_of_calls_may_be_used_again() -> None:
    again = [
        *(user("Q"), assistant("", "call_0"), tool("call_0"), assistant("A")),
        *(user("R"), assistant("", "call_0"), tool("call_0"), assistant("B"), user("S")),
    ]
    gone, _ = planned(again, messages_budget(9, threshold=3))
    assert gone == ["1", "2", "3"]


def test_a_call_without_a_result_holds_nothing_together() -> None:
    gone, _ = planned([user("Q"), assistant("", "a"), user("R"), user("S")], messages_budget(3, 2))
    assert gone == ["1", "2"]


def test_an_instruction_of_the_system_takes_of_the_room_and_stays() -> None:
    found = plan_shortening(
        to_entries([system("Be kind."), *talk(9)], count_one), None, messages_budget(6)
    )
    assert ids(found.replaced) == ["2", "3", "4", "5", "6", "7"]
    running = RunningSummary("Short.", tuple(ids(found.replaced)), "7")
    assert [m["content"] for m in found.result(running)] == [
        "Be kind.",
        "Summary of the conversation so far: Short.",
        "Q6",
        "A7",
        "Q8",
    ]


def test_the_old_summary_is_shown_although_nothing_new_is_summed_up() -> None:
    running = RunningSummary("Short.", ("1", "2"), "2")
    found = plan_shortening(to_entries(talk(3), count_one), running, messages_budget(9))
    assert [m["content"] for m in found.result(running)] == [
        "Summary of the conversation so far: Short.",
        "Q2",
    ]


def test_the_old_summary_is_shown_once_when_a_result_is_sent_back() -> None:
    running = RunningSummary("Short.", ("1", "2"), "2")
    sent_back = [system("Be kind."), running.message(), user("Next", "7")]
    found = plan_shortening(to_entries(sent_back, count_one), running, messages_budget(9))
    assert [m["content"] for m in found.result(running)] == [
        "Be kind.",
        "Summary of the conversation so far: Short.",
        "Next",
    ]


def test_instructions_that_hold_the_old_summary_are_kept_without_it() -> None:
    running = RunningSummary("Short.", ("1", "2"), "2")
    prompt = system(f"Be kind.\n\n{running.message()['content']}")
    found = plan_shortening(
        to_entries([prompt, user("Next", "7")], count_one), running, messages_budget(9)
    )
    assert [m["content"] for m in found.result(running)] == [
        "Be kind.",
        "Summary of the conversation so far: Short.",
        "Next",
    ]


def test_a_message_is_found_that_a_summary_covers_twice() -> None:
    running = RunningSummary("Short.", ("1", "2"), "2")
    again = to_entries([user("a", "0"), user("b", "2"), user("c", "1")], count_one)
    found = find_misplaced(again, running)
    assert found is not None
    assert found.id == "1"
    assert find_misplaced(again[:2], running) is None


def test_extending_a_summary_adds_the_messages_it_took_in() -> None:
    entries = to_entries([user("a", "x"), user("b", "y")], count_one)
    assert RunningSummary("Old.", ("w",), "w").extended("New.", entries) == RunningSummary(
        "New.", ("w", "x", "y"), "y"
    )


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


def test_what_fits_one_part_is_not_cut() -> None:
    turns = [Turn("1", "user", "abc"), Turn("2", "assistant", "de")]
    assert split_turns(turns, 5) == [turns]
    assert split_turns(turns, 4) == [turns[:1], turns[1:]]
    assert split_turns([Turn("1", "user", "abcdef")], 4) == [
        [Turn("1", "user", "abcd")],
        [Turn("1", "user", "ef")],
    ]
