"""The scores of an example."""

from typing import Any

from finetune_api.graders import Grader
from finetune_serving.evaluation.engine import ModelOutput
from finetune_serving.evaluation.scoring import Scoring, score_output
from model.tiny import CHAT_TEMPLATE
from unit.questions import build_question
from unit.tool_templates import TOOLS, learn


def test_every_shape_of_example_gets_the_scores_that_apply_to_it() -> None:
    grader = Grader.model_validate({"name": "city", "stringCheck": {"operation": "like"}})
    all_scores = Scoring(("Perplexity", "Grader", "ExactMatch", "TokenF1", "RougeL", "JsonValid", "Bleu"), (grader,))
    chat = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Oslo"}]}
    sample = score_output(build_question(**chat), ModelOutput(6.0, 3, answer="It is Oslo"), all_scores, None)
    assert {name: round(value, 3) for name, value in sample.scores.items()} == {
        "ExactMatch": 0,
        "TokenF1": 0.5,
        "RougeL": 0.5,
        "JsonValid": 0,
        "Grader city": 1,
    }
    prompt = score_output(
        build_question(prompt=[], reference={"answer": "Rome"}),
        ModelOutput(answer="Rome"),
        Scoring(("Grader",), (grader,)),
        None,
    )
    assert prompt.scores == {"Grader city": 1}
    pair: dict[str, Any] = {"prompt": [], "chosen": [{"role": "assistant", "content": "x"}], "rejected": []}
    preference_scoring = Scoring(("PreferenceAccuracy",))
    assert score_output(build_question(**pair), ModelOutput(6.0, 3, -2.5), preference_scoring, None).scores == {
        "PreferenceAccuracy": 1
    }
    assert score_output(build_question(**pair), ModelOutput(6.0, 3, -1.5), preference_scoring, None).scores == {
        "PreferenceAccuracy": 0
    }
    undesirable = score_output(
        build_question(prompt=[], completion=[], label=False),
        ModelOutput(6.0, 3, answer="x"),
        Scoring(("Perplexity",)),
        None,
    )
    assert (undesirable.nll, undesirable.tokens, undesirable.labeled_logprob) == (0, 0, (False, -2.0))


def test_tool_calls_are_scored_only_if_the_reference_calls_a_tool() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    scoring, tool_format = Scoring(("ToolCallValid",)), learn(CHAT_TEMPLATE)
    calling = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": TOOLS}
    saying = {"messages": [{"role": "assistant", "content": "rain"}], "tools": TOOLS}
    output = ModelOutput(answer='weather {"city": "Oslo"}', raw_answer='<|call|>weather {"city": "Oslo"}')
    assert score_output(build_question(**calling), output, scoring, tool_format).scores == {"ToolCallValid": 1}
    assert score_output(build_question(**saying), output, scoring, tool_format).scores == {}
