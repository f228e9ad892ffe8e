"""Which scores an example gets."""

from typing import Any

from finetune_api.graders import Grader
from finetune_serving.evaluation.engine import Measured
from finetune_serving.evaluation.scoring import Scoring, score
from model.tiny import CHAT_TEMPLATE
from unit.questions import question
from unit.tool_templates import TOOLS, learn


def test_every_shape_of_example_gets_the_scores_that_apply_to_it() -> None:
    grader = Grader.model_validate({"name": "city", "stringCheck": {"operation": "like"}})
    all_scores = Scoring(("Perplexity", "Grader", "ExactMatch", "TokenF1", "RougeL", "JsonValid", "Bleu"), (grader,))
    chat = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Oslo"}]}
    found = score(question(**chat), Measured(6.0, 3, answer="It is Oslo"), all_scores, None)
    assert {name: round(one, 3) for name, one in found.scores.items()} == {
        "ExactMatch": 0,
        "TokenF1": 0.5,
        "RougeL": 0.5,
        "JsonValid": 0,
        "Grader city": 1,
    }
    prompt = score(
        question(prompt=[], reference={"answer": "Rome"}),
        Measured(answer="Rome"),
        Scoring(("Grader",), (grader,)),
        None,
    )
    assert prompt.scores == {"Grader city": 1}
    pair: dict[str, Any] = {"prompt": [], "chosen": [{"role": "assistant", "content": "x"}], "rejected": []}
    preferring = Scoring(("PreferenceAccuracy",))
    assert score(question(**pair), Measured(6.0, 3, -2.5), preferring, None).scores == {"PreferenceAccuracy": 1}
    assert score(question(**pair), Measured(6.0, 3, -1.5), preferring, None).scores == {"PreferenceAccuracy": 0}
    unwanted = score(
        question(prompt=[], completion=[], label=False), Measured(6.0, 3, answer="x"), Scoring(("Perplexity",)), None
    )
    assert (unwanted.nll, unwanted.tokens, unwanted.judged) == (0, 0, (False, -2.0))


def test_calls_are_judged_only_where_one_is_wanted() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    scoring, written = Scoring(("ToolCallValid",)), learn(CHAT_TEMPLATE)
    calling = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": TOOLS}
    saying = {"messages": [{"role": "assistant", "content": "rain"}], "tools": TOOLS}
    measured = Measured(answer='weather {"city": "Oslo"}', raw='<|call|>weather {"city": "Oslo"}')
    assert score(question(**calling), measured, scoring, written).scores == {"ToolCallValid": 1}
    assert score(question(**saying), measured, scoring, written).scores == {}
