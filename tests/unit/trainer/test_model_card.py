"""The model card as a person and the hub read it."""

from pathlib import Path
from typing import Any

import pytest
from finetune_api.artifact import Artifact
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.jobfile import JobFile
from finetune_api.model_card import with_scores
from finetune_api.reports import ChosenHyperparameters, EvaluationSummary, TrainingSummary
from finetune_trainer.model_card import Trained, build_card, read_license
from huggingface_hub import ModelCard

HERE = Path(__file__).parent
SPEC = {
    "model": {"uri": "hf://org/base", "revision": "v1"},
    "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
    "method": {"sft": {}},
    "adapter": {"lora": {}},
}
STATISTICS = {"trainExamples": 90, "heldoutExamples": 10, "trainTokens": 4000, "digest": f"sha256:{'a' * 64}"}
SUMMARY = EvaluationSummary.model_validate(
    {
        "examples": 10,
        "passed": True,
        "metrics": [
            {
                "metric": "Perplexity",
                "base": 9.5,
                "tuned": 2.5,
                "gain": 0.7368,
                "gainLow": 0.7,
                "gainHigh": 0.78,
                "verdict": "Improved",
            }
        ],
        "gates": [{"metric": "Perplexity", "passed": True, "message": "Perplexity fell by 73.7 %"}],
    }
)


def trained(kind: str = "Adapter", license_id: str | None = "apache-2.0") -> Trained:
    return Trained(
        chosen=ChosenHyperparameters(
            epochs=3, learning_rate=2e-4, batch_size=8, micro_batch_size=8, gradient_accumulation=1
        ),
        training=TrainingSummary(steps=36, loss=0.75, seconds=12),
        artifact=Artifact.model_validate(
            {
                "kind": kind,
                "uri": "pvc://finetune-artifacts/shop-01234567/adapter/1",
                "digest": f"sha256:{'b' * 64}",
                "bytes": 1,
            }
        ),
        losses=[(step, 3 / (1 + step / 12)) for step in range(1, 37)],
        base_license=license_id,
    )


def job(**changed: object) -> JobFile:
    return JobFile("shop", "0123456789", FineTuneJobSpec.model_validate(SPEC | changed))


def front_matter(card: str) -> dict[str, Any]:
    data: Any = ModelCard(card).data
    return dict(data.to_dict())


def test_the_card_tells_everything(request: pytest.FixtureRequest) -> None:
    card = with_scores(build_card(job(), trained(), STATISTICS), SUMMARY)
    golden = HERE / "model_card.md"
    if request.config.getoption("--rewrite-golden", default=False):
        golden.write_text(card)
    assert card == golden.read_text()


def test_the_hub_reads_the_front_matter() -> None:
    data = front_matter(build_card(job(), trained(), STATISTICS))
    assert (data["base_model"], data["library_name"], data["license"]) == ("org/base", "peft", "apache-2.0")
    assert data["tags"] == ["trl", "sft", "lora"]
    private = job(model={"uri": "pvc://models/base"}, adapter={"full": {}})
    card = build_card(private, trained("Model", None), STATISTICS)
    data = front_matter(card)
    assert "base_model" not in data
    assert (data["library_name"], data["license"]) == ("transformers", "unknown")
    assert "Licence of the base model: unknown: look at the base model." in card


def test_later_scores_take_the_place_of_earlier_ones() -> None:
    open_card = build_card(job(), trained(), STATISTICS)
    assert "not compared yet" in open_card
    once = with_scores(open_card, SUMMARY)
    assert "not compared yet" not in once
    assert with_scores(once, SUMMARY) == once


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Base\n", "mit"),
        ("---\nlicense: [mit\n---\n", None),
        ("---\ntags: [a]\n---\n", None),
        ("# Base\n", None),
        ("", None),
    ],
)
def test_the_licence_is_that_of_the_base_models_card(tmp_path: Path, text: str, found: str | None) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_license(tmp_path) == found
