"""The evaluation through vLLM agrees with a direct computation by transformers and peft."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from finetune_api.artifact import Artifact, ArtifactKind, describe_artifact
from finetune_api.conditions import Reason
from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.contract.reports import parse_report
from finetune_pod.model_card import with_scores
from forked import preload, run_forked
from model.tiny import make_tiny_model
from serving.running import KEY, MODEL_URI, Server, make_adapter

preload("serving.imports")

CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"what does thing {number} cost?"},
            {"role": "assistant", "content": f"thing {number} costs {number} euros"},
        ]
    }
    for number in range(8)
]
PAIRS = [
    {
        "prompt": chat["messages"][:1],
        "chosen": [chat["messages"][1]],
        "rejected": [{"role": "assistant", "content": f"nobody knows {number}"}],
    }
    for number, chat in enumerate(CHATS)
]
REJECTED = [{"messages": [*pair["prompt"], *pair["rejected"]]} for pair in PAIRS]


@dataclass(frozen=True)
class Work:
    """A job after its training."""

    root: Path
    directory: JobDirectory

    @property
    def report(self) -> Any:
        """The full report."""
        return json.loads(self.directory.report("evaluate").read_text())

    def ask(self, examples: list[dict[str, Any]], method: str = "sft", **evaluation: Any) -> None:
        """Hold these examples out, and measure them so."""
        self.directory.heldout_data.write_text("".join(json.dumps(one) + "\n" for one in examples))
        manifest = {
            "metadata": {"name": "job", "uid": "0123456789"},
            "spec": {
                "model": {"uri": MODEL_URI},
                "dataset": {"train": {"uri": "pvc://data/x"}},
                "method": {method: {}},
                "adapter": {"lora": {"rank": 8}},
                "evaluation": {"maxNewTokens": 4} | evaluation,
            },
        }
        (self.root / "job.json").write_text(json.dumps(manifest))

    def made(self, directory: Path, kind: ArtifactKind = "Adapter") -> Artifact:
        """Return what lies in a directory below the claims."""
        return describe_artifact(directory, f"pvc://{directory.relative_to(self.root / 'claims')}", kind)

    def evaluate(self, artifact: Artifact, *more: str) -> tuple[int, Any]:
        """Run the evaluation; return its exit status and its report."""
        (self.root / "report.json").unlink(missing_ok=True)
        arguments = [
            f"--root={self.root}",
            "evaluate",
            f"--job={self.root / 'job.json'}",
            f"--artifact={artifact.model_dump_json(by_alias=True)}",
            f"--termination-log={self.root / 'report.json'}",
            *more,
        ]
        status = run_forked("finetune_serving", arguments, self.root / "evaluate.log", 280)
        assert (self.root / "report.json").exists(), (self.root / "evaluate.log").read_text()[-4000:]
        return status, parse_report((self.root / "report.json").read_text())


@pytest.fixture(scope="module")
def work(root: Path) -> Work:
    """A job whose training wrote an adapter."""
    made = Work(root, JobDirectory(root / "claims" / "finetune-artifacts" / "job-01234567", root))
    made.directory.heldout_data.parent.mkdir(parents=True)
    make_adapter(root / "claims" / "models" / "tiny", made.directory.adapter(1), 3)
    return made


def test_base_incumbent_and_tuned_are_judged_on_the_same_questions(work: Work) -> None:
    adapter, incumbent = work.directory.adapter(1), work.root / "claims" / "out" / "first"
    gates = [{"metric": "Perplexity", "minGain": 0.5}, {"metric": "Rouge1", "relativeTo": "Incumbent", "maxLoss": 1}]
    work.ask(CHATS, gates=gates)
    work.directory.model_card.parent.mkdir(exist_ok=True)
    work.directory.model_card.write_text(with_scores("# job\n", None))
    artifact = describe_artifact(incumbent, "pvc://out/first").to_dict()
    status, report = work.evaluate(
        work.made(adapter), f"--incumbent={json.dumps({'job': 'old', 'artifact': artifact})}"
    )
    assert status == 0, report
    measured = {metric.metric: metric for metric in report.evaluation.metrics}
    wanted = direct_perplexities(work.root / "claims" / "models" / "tiny", [None, adapter, incumbent])
    perplexity = measured["Perplexity"]
    assert [perplexity.base, perplexity.tuned, perplexity.incumbent.value] == pytest.approx(wanted, rel=0.01)
    assert perplexity.verdict == ("Regressed" if perplexity.gain_high < 0 else "Inconclusive")
    assert report.reason is Reason.GATES_FAILED
    assert [(gate.metric, gate.relative_to, gate.passed) for gate in report.evaluation.gates] == [
        ("Perplexity", "Base", False),
        ("Rouge1", "Incumbent", True),
    ]
    assert work.directory.model_card.read_text() == with_scores("# job\n", report.evaluation)
    full = work.report
    assert [one["metric"] for one in full["metrics"]][-1] == "Rouge2"
    assert next(one["mcnemarP"] for one in full["metrics"] if one["metric"] == "ExactMatch") == 1
    assert full["incumbent"]["job"] == "old"
    assert [sample["reference"] for sample in full["samples"]] == [chat["messages"][1]["content"] for chat in CHATS]
    assert {"base", "incumbent", "tuned"} <= full["samples"][0].keys()
    assert len({full["samples"][0][role] for role in ("base", "incumbent", "tuned")}) > 1


def test_a_running_server_judges_a_hidden_version_as_an_engine_of_its_own_does(
    work: Work, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    incumbent, adapter = work.root / "claims" / "out" / "first", work.directory.adapter(1)
    proven = {"job": "first", "artifact": describe_artifact(incumbent, "pvc://out/first").to_dict()}
    work.ask(CHATS, metrics=["Perplexity", "ExactMatch", "RougeL"])
    job = json.loads((work.root / "job.json").read_text())
    job["spec"]["serving"] = {"modelName": "bot", "server": "shared"}
    (work.root / "job.json").write_text(json.dumps(job))
    status, alone = work.evaluate(work.made(adapter), f"--incumbent={json.dumps(proven)}")
    assert status == 0, alone
    answers = work.report["samples"]

    routes = server.describe({"bot": [(incumbent, 100), (adapter, 0)]})
    routes["routes"][1] |= {"job": "job", "isHidden": True}
    server.write(json.dumps(routes))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, served = work.evaluate(
        work.made(adapter), f"--incumbent={json.dumps(proven)}", f"--server-url={server.url}"
    )
    assert status == 0, served
    assert work.report["samples"] == answers
    for one, other in zip(served.evaluation.metrics, alone.evaluation.metrics, strict=True):
        assert (one.base, one.tuned, one.incumbent.value) == pytest.approx(
            (other.base, other.tuned, other.incumbent.value), rel=1e-3
        )
    assert [one["id"] for one in server.get("/v1/models")["data"]] == ["base", "bot"]

    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    status, refused = work.evaluate(work.made(adapter), f"--server-url={server.url}")
    assert (status, refused.reason) == (ExitCode.SOFTWARE, Reason.EVALUATION_FAILED)
    assert "give an API key of this server" in refused.message


def test_a_changed_incumbent_is_refused_before_any_gate(work: Work) -> None:
    work.ask(CHATS, gates=[{"metric": "Perplexity", "relativeTo": "Incumbent", "maxLoss": 0}])
    artifact = {"uri": "pvc://out/first", "digest": "sha256:" + "0" * 64, "bytes": 1}
    status, report = work.evaluate(
        work.made(work.directory.adapter(1)), f"--incumbent={json.dumps({'job': 'old', 'artifact': artifact})}"
    )
    assert (status, report.reason) == (ExitCode.BAD_CONFIG, Reason.ADAPTER_REFUSED)
    assert "the incumbent of FineTuneJob old cannot be judged" in report.message


def test_an_adapter_that_changed_since_is_refused(work: Work) -> None:
    work.ask(CHATS)
    status, report = work.evaluate(
        work.made(work.directory.adapter(1)).model_copy(update={"digest": "sha256:" + "0" * 64})
    )
    assert (status, report.reason) == (ExitCode.BAD_CONFIG, Reason.ADAPTER_REFUSED)


def test_of_plain_text_only_the_perplexity_is_measured(work: Work) -> None:
    work.ask([{"text": f"the {word} costs nothing"} for word in ("tent", "lamp")])
    status, report = work.evaluate(work.made(work.directory.adapter(1)))
    assert status == 0, report
    (measured,) = report.evaluation.metrics
    assert measured.metric == "Perplexity"
    assert 1 < measured.base < 10_000


def test_prompts_are_answered_and_graded(work: Work) -> None:
    prompt = [{"role": "user", "content": "what does thing 7 cost?"}]
    graders = [{"name": "euros", "stringCheck": {"operation": "ne", "referenceField": "price"}}]
    work.ask([{"prompt": prompt, "reference": {"price": "7 euros"}}] * 3, graders=graders)
    status, report = work.evaluate(work.made(work.directory.adapter(1)))
    assert status == 0, report
    (measured,) = report.evaluation.metrics
    assert (measured.label, measured.base, measured.tuned) == ("Grader euros", 1, 1)
    assert work.report["samples"][0]["scores"]["tuned"] == {"Grader euros": 1}


def test_a_whole_model_is_judged_beside_its_base_by_preferences(work: Work) -> None:
    models = work.root / "claims" / "models"
    model = make_tiny_model(work.directory.adapter(1).parents[1] / "model" / "1", seed=7)
    work.ask(PAIRS, "dpo")
    status, report = work.evaluate(work.made(model, "Model"))
    assert status == 0, report
    measured = {metric.metric: metric for metric in report.evaluation.metrics}
    assert list(measured) == ["Perplexity", "PreferenceAccuracy"]
    assert [gate.metric for gate in report.evaluation.gates] == ["PreferenceAccuracy"]
    for directory, found in ((models / "tiny", "base"), (model, "tuned")):
        likelihoods = [[mean for mean, _ in direct_likelihoods(directory, None, chats)] for chats in (CHATS, REJECTED)]
        prefers = [one > other for one, other in zip(*likelihoods, strict=True)]
        assert getattr(measured["PreferenceAccuracy"], found) == pytest.approx(sum(prefers) / len(prefers))
        assert getattr(measured["Perplexity"], found) == pytest.approx(
            direct_perplexities(directory, [None])[0], rel=0.01
        )


def test_a_reward_model_prefers_by_its_scores(work: Work) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = work.root / "claims" / "models" / "tiny"
    torch.manual_seed(3)
    reward: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    reward.score.weight.data.normal_()
    directory = work.directory.adapter(1).parents[1] / "model" / "2"
    reward.save_pretrained(directory)
    work.ask(PAIRS, "reward")
    status, report = work.evaluate(work.made(directory, "Model"))
    assert status == 0, report
    (measured,) = report.evaluation.metrics
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    scores = []
    for chats in (CHATS, REJECTED):
        texts = [tokenizer.apply_chat_template(one["messages"], tokenize=False) for one in chats]
        ids = [tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
        scores.append([reward(input_ids=one).logits.item() for one in ids])
    prefers = [better > worse for better, worse in zip(*scores, strict=True)]
    assert measured.tuned == pytest.approx(sum(prefers) / len(prefers))
    assert 0 < measured.tuned < 1


def direct_perplexities(model: Path, adapters: list[Path | None]) -> list[float]:
    """Compute exp(sum of losses / number of tokens) over the assistant's tokens without vLLM."""
    found = []
    for adapter in adapters:
        likelihoods = direct_likelihoods(model, adapter, CHATS)
        total, count = sum(mean * tokens for mean, tokens in likelihoods), sum(tokens for _, tokens in likelihoods)
        found.append(math.exp(-total / count))
    return found


def direct_likelihoods(model: Path, adapter: Path | None, chats: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """Compute each answer's mean log-likelihood per token, and its number of tokens, without vLLM."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    judged: Any = AutoModelForCausalLM.from_pretrained(model)
    if adapter:
        judged = PeftModel.from_pretrained(judged, adapter)
    found = []
    for chat in chats:
        text = tokenizer.apply_chat_template(chat["messages"], tokenize=False)
        opening = tokenizer.apply_chat_template(chat["messages"][:1], tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        with torch.no_grad():
            logprobs = judged(input_ids=ids).logits.log_softmax(-1)[0]
        # The template ends every turn with a line break, which belongs to the turn.
        likelihoods = [
            float(logprobs[index - 1, ids[0, index]])
            for index, (begin, _) in enumerate(encoded["offset_mapping"])
            if begin >= len(opening)
        ]
        found.append((sum(likelihoods) / len(likelihoods), len(likelihoods)))
    return found
