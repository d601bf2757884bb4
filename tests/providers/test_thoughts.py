"""Thoughts never stay in a model's text, whatever marks them."""

import time

import pytest

from app.providers.thoughts import remove_thoughts, remove_thoughts_in


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<thinking>hm</thinking>\n\nTea.", "Tea."),
        ('<think time="3">hm</think>Tea.', "Tea."),
        ("<Reasoning>\nhm\n</Reasoning>Tea.", "Tea."),
        ("<antThinking>hm</antThinking>Tea.", "Tea."),
        ("<seed:think>hm</seed:think>Tea.", "Tea."),
        ("[THINK]hm[/THINK]Tea.", "Tea."),
        ("◁think▷hm◁/think▷Tea.", "Tea."),
        ("<|begin_of_thought|>hm<|end_of_thought|>Tea.", "Tea."),
        ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Tea.<|END_RESPONSE|>", "Tea."),
        ("<|channel>thought\nhm<channel|>Tea.", "Tea."),
        ("a <think>b</think> c <thought>d</thought>", "a  c"),
        ("<think>a <think>b</think> c</think>Tea.", "Tea."),
        ("hm, no beginning</think>Tea.", "Tea."),
        ("<reasoning>no end", ""),
        ("Tea.\n<think>no end\nat all", "Tea."),
        ("Write <think> before it.", "Write <think> before it."),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>"
            "Tea.<|return|>",
            "Tea.",
        ),
        ("<|channel|>analysis<|message|>hm, no end", ""),
        ("<|start|>assistant<|channel|>final <|constrain|>text<|message|>Tea.", "Tea."),
        (
            "<|channel|>commentary to=functions.save <|constrain|>json<|message|>{}<|call|>",
            '{"name": "save", "arguments": {}}',
        ),
        ("analysisThe user wants tea.assistantfinalTea.", "Tea."),
        ("analysis of the final result", "analysis of the final result"),
        ("Tea.<|im_end|>\n</s>", "Tea."),
        (" Tea.\n", " Tea.\n"),
        ('<details type="reasoning" done="true"><summary>a</summary>\nhm</details>\nTea.', "Tea."),
        ("<details type='reasoning'>cut", ""),
        (
            "<details><summary>a</summary>Tea.</details>",
            "<details><summary>a</summary>Tea.</details>",
        ),
        ("<think>hm</think>\n<response>\nTea.\n</response>\n", "Tea."),
        ("<response>Tea.", "Tea."),
        ("The <response>Tea.</response>", "The <response>Tea.</response>"),
    ],
)
def test_only_the_answer_is_left(text: str, left: str) -> None:
    assert remove_thoughts(text) == left


@pytest.mark.parametrize(
    "part",
    [
        "<think>",
        "</think>",
        "<think ",
        "<|channel|>final<|message|>",
        "<|channel|>a ",
        "</s>",
        "<details type=reasoning>",
    ],
)
def test_hostile_texts_take_linear_time(part: str) -> None:
    began = time.process_time()
    remove_thoughts(part * (1_000_000 // len(part)))
    assert time.process_time() - began < 3


def test_thoughts_are_left_out_of_every_text_of_a_value() -> None:
    value = {
        "a": "Tea.<reasoning>hm</reasoning>",
        "b": {"only": "[THINK]hm[/THINK]", "empty": "", "n": 1},
        "c": ["<|channel|>analysis<|message|>hm<|end|>", "<thinking>hm</thinking>Rice.", None],
    }
    left = {"a": "Tea.", "b": {"empty": "", "n": 1}, "c": ["Rice.", None]}
    assert remove_thoughts_in(value) == left
