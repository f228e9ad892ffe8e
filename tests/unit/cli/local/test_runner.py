"""A local run makes the operator's decisions; the programs of the stages are stubs."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from finetune.local import processes
from finetune.local.runner import Runner, adopt, read_system_message
from finetune.local.store import Store
from finetune_api.jobstatus import TrainingProgress
from finetune_operator.manifests.names import job_file
from finetune_operator.state.conditions import Event
from finetune_operator.state.views import JobView, view_job
from unit.pod_reports import DIGEST
from unit.specs import SPEC
from waiting import wait_for

HERE = Path(__file__).parents[3]
MEMORY = dict.fromkeys(("total", "weights", "gradients", "optimizer", "activations", "logits", "overhead"), "1Gi")
PREPARED: dict[str, Any] = {
    "outcome": "Succeeded",
    "reason": "Succeeded",
    "dataset": {
        "trainExamples": 9,
        "heldoutExamples": 3,
        "trainTokens": 90,
        "longestExampleTokens": 12,
        "steps": 5,
        "digest": DIGEST,
    },
    "estimate": {"trainedTokens": 90, "steps": 5, "parameters": 100, "trainableParameters": 10, "memory": MEMORY},
}
TRAINED: dict[str, Any] = {
    "outcome": "Succeeded",
    "reason": "Succeeded",
    "training": {"steps": 5, "loss": 1.0, "seconds": 2.0},
    "artifact": {"uri": "pvc://finetune-artifacts/shop/adapter/1", "digest": DIGEST, "bytes": 1},
}


def build_evaluated(*, passed: bool) -> dict[str, Any]:
    gate = {"metric": "Perplexity", "passed": passed, "message": "Perplexity 2 to 1"}
    evaluation = {"examples": 3, "passed": passed, "metrics": [], "gates": [gate]}
    return {"outcome": "Succeeded", "reason": "Succeeded", "evaluation": evaluation}


class Recorder:
    """Keeps what a run shows."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.events: list[Event] = []

    def show(self, job: JobView, progress: TrainingProgress | None) -> None:  # noqa: ARG002
        if job.status.stage and job.status.stage not in self.stages:
            self.stages.append(job.status.stage)

    def report(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(processes, "PROGRAMS", {"trainer": "stage_stub", "serving": "stage_stub"})
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{HERE.parent / 'crds' / 'src'}")
    return Runner(tmp_path / "runs", tmp_path / "job.yaml", {}, Recorder())


def set_reports(monkeypatch: pytest.MonkeyPatch, **reports: Any) -> None:
    monkeypatch.setenv("STAGE_REPORTS", json.dumps(reports))


def apply(runner: Runner, **changes: Any) -> None:
    spec = SPEC | changes
    document = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "shop"}}
    adopt(runner.store, [], document | {"spec": spec})


def true_reasons(job: JobView) -> dict[str, str]:
    return {condition.type: condition.reason for condition in job.status.conditions if condition.status == "True"}


def test_a_job_passes_all_stages(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reports(monkeypatch, prepare=PREPARED, train=TRAINED, evaluate=build_evaluated(passed=True))
    apply(runner)
    job = runner.run("shop")
    assert true_reasons(job)["Ready"] == "Completed"
    assert job.status.artifact is not None
    assert runner.display.stages == ["Prepare", "Train", "Evaluate", "Complete"]  # type: ignore[attr-defined]
    apply(runner)
    set_reports(monkeypatch)
    assert runner.run("shop").status == job.status


def test_a_failed_gate_fails_the_job_and_the_next_run_begins_anew(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_reports(monkeypatch, prepare=PREPARED, train=TRAINED, evaluate=build_evaluated(passed=False))
    apply(runner)
    failed = runner.run("shop")
    assert true_reasons(failed)["Failed"] == "GatesFailed"
    set_reports(monkeypatch, prepare=PREPARED, train=TRAINED, evaluate=build_evaluated(passed=True))
    apply(runner)
    again = runner.run("shop")
    assert true_reasons(again)["Ready"] == "Completed"
    assert again.uid != failed.uid


def test_a_changed_spec_begins_anew(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reports(monkeypatch, prepare=PREPARED, train=TRAINED, evaluate=build_evaluated(passed=True))
    apply(runner)
    first = runner.run("shop")
    apply(runner, hyperparameters={"epochs": 7})
    second = runner.run("shop")
    assert first.uid != second.uid
    assert true_reasons(second)["Ready"] == "Completed"


def test_a_job_that_starts_again_gets_a_new_server_of_its_own(runner: Runner) -> None:
    serving = {"modelName": "shop", "template": {"replicas": 1}}
    server = {"kind": "ModelServer", "metadata": {"name": "shop"}, "spec": {}}
    apply(runner, serving=serving)
    runner.store.put(server)
    apply(runner, serving=serving)
    assert runner.store.get("ModelServer", "shop")
    apply(runner, serving=serving, hyperparameters={"epochs": 7})
    assert runner.store.get("ModelServer", "shop") is None


def test_bad_data_fails_the_job_with_the_report_of_its_stage(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reports(monkeypatch, prepare={"outcome": "Failed", "reason": "DatasetInvalid", "message": "line 3: no JSON"})
    apply(runner)
    job = runner.run("shop")
    (failed,) = (condition for condition in job.status.conditions if condition.type == "Failed")
    assert (failed.reason, failed.message) == ("DatasetInvalid", "line 3: no JSON")


def test_a_job_waits_for_its_approval(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reports(monkeypatch, prepare=PREPARED, train=TRAINED, evaluate=build_evaluated(passed=True))
    budget = {"approval": "Manual"}
    apply(runner, budget=budget)
    waiting = runner.run("shop")
    assert "Ready" not in true_reasons(waiting)
    apply(runner, budget=budget, approved=True)
    approved = runner.run("shop")
    assert true_reasons(approved)["Ready"] == "Completed"
    assert (approved.uid, approved.status.attempts.prepare) == (waiting.uid, 1)


def test_a_stopped_training_is_another_attempt_of_the_next_run(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    set_reports(monkeypatch, prepare=PREPARED)
    apply(runner)
    thread = threading.Thread(target=runner.run, args=("shop",), daemon=True)
    thread.start()
    wait_for(lambda: read_job(runner).status.stage == "Train" and bool(runner.processes), "the training")
    first = read_job(runner)
    runner.stop()
    set_reports(monkeypatch, train=TRAINED, evaluate=build_evaluated(passed=True))
    thread.join(60)
    assert not thread.is_alive()
    job = read_job(runner)
    assert (job.uid, job.status.attempts.prepare, job.status.attempts.train) == (first.uid, 1, 2)


def test_a_training_whose_run_was_killed_is_another_attempt_of_the_next_run(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_reports(monkeypatch, prepare=PREPARED, train=TRAINED, evaluate=build_evaluated(passed=True))
    apply(runner)
    runner.run("shop")
    (train,) = (job for job in runner.store.list("Job") if "-train-" in job["metadata"]["name"])
    runner.store.put({key: value for key, value in train.items() if key != "pod"} | {"status": {}})
    manifest = runner.store.get("FineTuneJob", "shop")
    assert manifest is not None
    kept = [
        item for item in manifest["status"]["conditions"] if item["type"] in ("Accepted", "DatasetReady", "Approved")
    ]
    runner.store.put(manifest | {"status": manifest["status"] | {"conditions": kept}})
    again = Runner(runner.root, runner.manifest, {}, Recorder()).run("shop")
    assert again.status.attempts.train == 2
    assert true_reasons(again)["Ready"] == "Completed"


def read_job(runner: Runner) -> JobView:
    manifest = runner.store.get("FineTuneJob", "shop")
    assert manifest is not None
    return view_job(manifest)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}, "Be kind."),
        ({"messages": [{"role": "user", "content": "Hi"}]}, ""),
        ({"text": "a"}, ""),
    ],
)
def test_the_chat_begins_as_the_held_out_data(row: Any, message: str, runner: Runner) -> None:
    apply(runner)
    job = read_job(runner)
    directory = runner.root / "claims" / job_file(job).output_uri.removeprefix("pvc://") / "data"
    directory.mkdir(parents=True)
    (directory / "heldout.jsonl").write_text(json.dumps(row) + "\n")
    assert read_system_message(runner.root, job) == message


def test_the_store_keeps_what_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written = store.put({"kind": "Job", "metadata": {"name": "b"}})
    assert store.get("Job", "b") == written
    assert written["metadata"]["uid"]
    store.put({"kind": "Job", "metadata": {"name": "a"}})
    assert [job["metadata"]["name"] for job in store.list("Job")] == ["a", "b"]
    store.delete("Job", "b")
    assert store.get("Job", "b") is None
