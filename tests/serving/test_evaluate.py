"""The evaluation with vLLM agrees with a direct computation with transformers and peft."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from finetune_api.artifact import describe_artifact
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.jobfile import JobDirectory
from finetune_pod.model_card import with_scores
from model.tiny import make_tiny_model
from serving.trained_job import CHATS, TrainedJob
from serving.vllm_server import KEY, Server, make_adapter

PAIRS = [
    {
        "prompt": chat["messages"][:1],
        "chosen": [chat["messages"][1]],
        "rejected": [{"role": "assistant", "content": f"nobody knows {number}"}],
    }
    for number, chat in enumerate(CHATS)
]
REJECTED = [{"messages": [*pair["prompt"], *pair["rejected"]]} for pair in PAIRS]


@pytest.fixture(scope="module")
def trained_job(root: Path) -> TrainedJob:
    """A job whose training wrote an adapter."""
    trained_job = TrainedJob(root, JobDirectory(root / "claims" / "finetune-artifacts" / "job-01234567", root))
    trained_job.directory.heldout_data.parent.mkdir(parents=True)
    make_adapter(root / "claims" / "models" / "tiny", trained_job.directory.adapter(1), 3)
    return trained_job


def test_base_incumbent_and_tuned_are_evaluated_on_the_same_questions(trained_job: TrainedJob) -> None:
    adapter, incumbent = trained_job.directory.adapter(1), trained_job.root / "claims" / "out" / "first"
    gates = [
        {"metric": "Perplexity", "minGain": 0.5},
        {"metric": "Rouge1", "relativeTo": "Incumbent", "maxRegression": 1},
    ]
    trained_job.prepare(CHATS, gates=gates)
    trained_job.directory.model_card.parent.mkdir(exist_ok=True)
    trained_job.directory.model_card.write_text(with_scores("# job\n", None))
    artifact = describe_artifact(incumbent, "pvc://out/first").to_dict()
    status, report = trained_job.evaluate(
        trained_job.describe(adapter), f"--incumbent={json.dumps({'job': 'old', 'artifact': artifact})}"
    )
    assert status == 0, report
    measured = {metric.metric: metric for metric in report.evaluation.metrics}
    expected = compute_perplexities(trained_job.root / "claims" / "models" / "tiny", [None, adapter, incumbent])
    perplexity = measured["Perplexity"]
    assert [perplexity.base, perplexity.tuned, perplexity.incumbent.value] == pytest.approx(expected, rel=0.01)
    assert perplexity.verdict == ("Regressed" if perplexity.gain_high < 0 else "Inconclusive")
    assert report.reason is Reason.GATES_FAILED
    outcomes = [(gate.metric, gate.relative_to, gate.passed, gate.conclusive) for gate in report.evaluation.gates]
    # No answer of the random models has a word of its reference.
    assert outcomes == [("Perplexity", "Base", False, True), ("Rouge1", "Incumbent", False, False)]
    assert trained_job.directory.model_card.read_text() == with_scores("# job\n", report.evaluation)
    full = trained_job.report
    assert [metric["metric"] for metric in full["metrics"]][-1] == "Rouge2"
    assert next(metric["mcnemarP"] for metric in full["metrics"] if metric["metric"] == "ExactMatch") == 1
    assert full["incumbent"]["job"] == "old"
    assert [sample["reference"] for sample in full["samples"]] == [chat["messages"][1]["content"] for chat in CHATS]
    assert {"base", "incumbent", "tuned"} <= full["samples"][0].keys()
    assert len({full["samples"][0][role] for role in ("base", "incumbent", "tuned")}) > 1


def test_a_running_server_evaluates_a_hidden_version_as_an_own_engine_does(
    trained_job: TrainedJob, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    incumbent, adapter = trained_job.root / "claims" / "out" / "first", trained_job.directory.adapter(1)
    served_version = {"job": "first", "artifact": describe_artifact(incumbent, "pvc://out/first").to_dict()}
    trained_job.prepare(CHATS, metrics=["Perplexity", "ExactMatch", "RougeL"])
    job = json.loads((trained_job.root / "job.json").read_text())
    job["spec"]["serving"] = {"modelName": "bot", "server": "shared"}
    (trained_job.root / "job.json").write_text(json.dumps(job))
    status, alone = trained_job.evaluate(trained_job.describe(adapter), f"--incumbent={json.dumps(served_version)}")
    assert status == 0, alone
    answers = trained_job.report["samples"]

    routes = server.build_routes({"bot": [(incumbent, 100), (adapter, 0)]})
    routes["routes"][1] |= {"job": "job", "isHidden": True}
    server.write_routes(json.dumps(routes))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, served = trained_job.evaluate(
        trained_job.describe(adapter), f"--incumbent={json.dumps(served_version)}", f"--server-url={server.url}"
    )
    assert status == 0, served
    assert trained_job.report["samples"] == answers
    for metric, expected in zip(served.evaluation.metrics, alone.evaluation.metrics, strict=True):
        assert (metric.base, metric.tuned, metric.incumbent.value) == pytest.approx(
            (expected.base, expected.tuned, expected.incumbent.value), rel=1e-3
        )
    assert [model["id"] for model in server.get("/v1/models")["data"]] == ["base", "bot"]

    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    status, refused = trained_job.evaluate(trained_job.describe(adapter), f"--server-url={server.url}")
    assert (status, refused.reason) == (ExitCode.SOFTWARE, Reason.EVALUATION_FAILED)
    assert "missing or invalid API key" in refused.message


def test_a_changed_incumbent_is_refused_before_any_gate(trained_job: TrainedJob) -> None:
    trained_job.prepare(CHATS, gates=[{"metric": "Perplexity", "relativeTo": "Incumbent", "maxRegression": 0}])
    artifact = {"uri": "pvc://out/first", "digest": "sha256:" + "0" * 64, "bytes": 1}
    status, report = trained_job.evaluate(
        trained_job.describe(trained_job.directory.adapter(1)),
        f"--incumbent={json.dumps({'job': 'old', 'artifact': artifact})}",
    )
    assert (status, report.reason) == (ExitCode.BAD_CONFIG, Reason.ADAPTER_REFUSED)
    assert "the incumbent of FineTuneJob old cannot be evaluated" in report.message


def test_an_adapter_that_changed_after_its_training_is_refused(trained_job: TrainedJob) -> None:
    trained_job.prepare(CHATS)
    status, report = trained_job.evaluate(
        trained_job.describe(trained_job.directory.adapter(1)).model_copy(update={"digest": "sha256:" + "0" * 64})
    )
    assert (status, report.reason) == (ExitCode.BAD_CONFIG, Reason.ADAPTER_REFUSED)


def test_for_plain_text_only_the_perplexity_is_measured(trained_job: TrainedJob) -> None:
    trained_job.prepare([{"text": f"the {word} costs nothing"} for word in ("tent", "lamp")])
    status, report = trained_job.evaluate(trained_job.describe(trained_job.directory.adapter(1)))
    assert status == 0, report
    (measured,) = report.evaluation.metrics
    assert measured.metric == "Perplexity"
    assert 1 < measured.base < 10_000


def test_prompts_are_answered_and_graded(trained_job: TrainedJob) -> None:
    prompt = [{"role": "user", "content": "what does thing 7 cost?"}]
    graders = [{"name": "euros", "stringCheck": {"operation": "ne", "referenceField": "price"}}]
    trained_job.prepare([{"prompt": prompt, "reference": {"price": "7 euros"}}] * 3, graders=graders)
    status, report = trained_job.evaluate(trained_job.describe(trained_job.directory.adapter(1)))
    assert status == 0, report
    (measured,) = report.evaluation.metrics
    assert (measured.label, measured.base, measured.tuned) == ("Grader euros", 1, 1)
    assert trained_job.report["samples"][0]["scores"]["tuned"] == {"Grader euros": 1}


def test_a_complete_model_is_compared_with_its_base_by_preferences(trained_job: TrainedJob) -> None:
    from transformers import AutoTokenizer

    models = trained_job.root / "claims" / "models"
    directory = trained_job.directory.adapter(1).parents[1] / "model" / "1"
    model = make_tiny_model(directory, seed=7, tokenizer=AutoTokenizer.from_pretrained(models / "tiny"))
    AutoTokenizer.from_pretrained(models / "tiny").save_pretrained(model)
    trained_job.prepare(PAIRS, "dpo")
    status, report = trained_job.evaluate(trained_job.describe(model, "Model"))
    assert status == 0, report
    measured = {metric.metric: metric for metric in report.evaluation.metrics}
    assert list(measured) == ["Perplexity", "PreferenceAccuracy", "TokenF1"]
    assert [gate.metric for gate in report.evaluation.gates] == ["PreferenceAccuracy", "TokenF1"]
    for directory, role in ((models / "tiny", "base"), (model, "tuned")):
        likelihoods = [[mean for mean, _ in compute_likelihoods(directory, None, chats)] for chats in (CHATS, REJECTED)]
        prefers = [chosen > rejected for chosen, rejected in zip(*likelihoods, strict=True)]
        assert getattr(measured["PreferenceAccuracy"], role) == pytest.approx(sum(prefers) / len(prefers))
        assert getattr(measured["Perplexity"], role) == pytest.approx(
            compute_perplexities(directory, [None])[0], rel=0.01
        )


def test_a_reward_model_prefers_by_its_scores(trained_job: TrainedJob) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = trained_job.root / "claims" / "models" / "tiny"
    torch.manual_seed(9)
    reward: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    reward.score.weight.data.normal_()
    directory = trained_job.directory.adapter(1).parents[1] / "model" / "2"
    reward.save_pretrained(directory)
    # Half of the pairs the other way round: a random model may prefer one kind of answer always.
    pairs = [
        pair | ({"chosen": pair["rejected"], "rejected": pair["chosen"]} if number % 2 else {})
        for number, pair in enumerate(PAIRS)
    ]
    trained_job.prepare(pairs, "reward")
    status, report = trained_job.evaluate(trained_job.describe(directory, "Model"))
    assert status == 0, report
    (measured,) = report.evaluation.metrics
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    scores = []
    for answer in ("chosen", "rejected"):
        chats = [[*pair["prompt"], *pair[answer]] for pair in pairs]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False).removesuffix("\n") for chat in chats]
        ids = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
        scores.append([reward(input_ids=sequence).logits.item() for sequence in ids])
    prefers = [chosen > rejected for chosen, rejected in zip(*scores, strict=True)]
    assert measured.tuned == pytest.approx(sum(prefers) / len(prefers))
    assert 0 < measured.tuned < 1


def compute_perplexities(model: Path, adapters: list[Path | None]) -> list[float]:
    """Return each model's exp(sum of losses / number of tokens) over the assistant's tokens, without vLLM."""
    perplexities = []
    for adapter in adapters:
        likelihoods = compute_likelihoods(model, adapter, CHATS)
        total, count = sum(mean * tokens for mean, tokens in likelihoods), sum(tokens for _, tokens in likelihoods)
        perplexities.append(math.exp(-total / count))
    return perplexities


def compute_likelihoods(model: Path, adapter: Path | None, chats: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """Return each answer's mean log-likelihood per token and its number of tokens, without vLLM."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tuned: Any = AutoModelForCausalLM.from_pretrained(model)
    if adapter:
        tuned = PeftModel.from_pretrained(tuned, adapter)
    results = []
    for chat in chats:
        text = tokenizer.apply_chat_template(chat["messages"], tokenize=False).removesuffix("\n")
        prompt = tokenizer.apply_chat_template(chat["messages"][:1], tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        with torch.no_grad():
            logprobs = tuned(input_ids=ids).logits.log_softmax(-1)[0]
        # The template ends every turn with a line break, which is part of the turn.
        likelihoods = [
            float(logprobs[index - 1, ids[0, index]])
            for index, (begin, _) in enumerate(encoded["offset_mapping"])
            if begin >= len(prompt)
        ]
        results.append((sum(likelihoods) / len(likelihoods), len(likelihoods)))
    return results
