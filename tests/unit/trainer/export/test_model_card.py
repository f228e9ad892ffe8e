"""The model card, as text and as the hub parses it."""

from pathlib import Path
from typing import Any

import pytest
from finetune_pod.model_card import with_scores
from finetune_trainer.export.model_card import build_card, read_license
from huggingface_hub import ModelCard
from unit.model_cards import STATISTICS, SUMMARY, job, trained

HERE = Path(__file__).parent


def parse_front_matter(card: str) -> dict[str, Any]:
    data: Any = ModelCard(card).data
    return dict(data.to_dict())


def test_the_card_is_complete(request: pytest.FixtureRequest) -> None:
    card = with_scores(build_card(job(), trained(), STATISTICS), SUMMARY)
    golden = HERE / "model_card.md"
    if request.config.getoption("--rewrite-golden", default=False):
        golden.write_text(card)
    assert card == golden.read_text()


def test_the_hub_parses_the_front_matter() -> None:
    data = parse_front_matter(build_card(job(), trained(), STATISTICS))
    assert (data["base_model"], data["library_name"], data["license"]) == ("org/base", "peft", "apache-2.0")
    assert data["tags"] == ["trl", "sft", "lora"]
    private = job(model={"uri": "pvc://models/base"}, adapter={"full": {}})
    card = build_card(private, trained("Model", None), STATISTICS)
    data = parse_front_matter(card)
    assert "base_model" not in data
    assert (data["library_name"], data["license"]) == ("transformers", "unknown")
    assert "License of the base model: unknown, see the base model." in card


@pytest.mark.parametrize(
    ("text", "license_id"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Base\n", "mit"),
        ("---\nlicense: [mit\n---\n", None),
        ("---\ntags: [a]\n---\n", None),
        ("# Base\n", None),
        ("", None),
    ],
)
def test_the_license_is_that_of_the_base_models_card(tmp_path: Path, text: str, license_id: str | None) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_license(tmp_path) == license_id


def test_the_card_lists_the_sources_of_a_mix() -> None:
    mix = [{"uri": "pvc://data/own.jsonl", "weight": 2}, {"uri": "hf://org/data", "revision": "v1", "weight": 0.2}]
    sources = [
        {"format": "Chat", "examples": 50, "trainExamples": 90, "heldoutExamples": 5},
        {"format": "Text", "examples": 100, "trainExamples": 18, "heldoutExamples": 2},
    ]
    card = build_card(job(dataset={"mix": mix}), trained(), STATISTICS | {"sources": sources})
    _, _, data = card.partition("## Data\n\n")
    assert data.startswith(
        "| source | weight | examples | training examples | held-out examples |\n| --- | --- | --- | --- | --- |\n"
        "| `pvc://data/own.jsonl` | 2 | 50 | 90 | 5 |\n| `hf://org/data`, revision `v1` | 0.2 | 100 | 18 | 2 |\n\n"
        "Together: 90 training examples with 4000 tokens, 10 held-out examples."
    )
