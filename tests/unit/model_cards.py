"""A job with its result, for tests of the model card."""

from finetune_api.artifact import Artifact
from finetune_api.contract.jobfile import JobFile
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.summaries import ChosenHyperparameters, EvaluationSummary, TrainingSummary
from finetune_trainer.export.model_card import TrainingResult

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


def trained(kind: str = "Adapter", license_id: str | None = "apache-2.0") -> TrainingResult:
    return TrainingResult(
        chosen=ChosenHyperparameters(
            epochs=3, learning_rate=2e-4, batch_size=8, micro_batch_size=8, gradient_accumulation_steps=1
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
