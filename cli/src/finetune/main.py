"""The command line: `finetune COMMAND`."""

import signal
import sys
from os.path import relpath
from pathlib import Path
from typing import Annotated

import typer
from finetune_api.conditions import ConditionType
from finetune_api.contract.jobfile import JobDirectory
from finetune_api.contract.mounts import path_of
from finetune_api.estimate import describe_estimate
from finetune_api.finetunejob import FineTuneJobSpec
from finetune_api.references import BASE_NAME
from finetune_operator.manifests.names import job_file
from finetune_operator.state.views import JobView
from openai import OpenAI
from rich.console import Console

from finetune.chat import ask, chat
from finetune.display import RunDisplay, format_dataset, format_evaluation
from finetune.errors import CommandError
from finetune.init import build_manifests, choose_name, format_manifests, inspect_data
from finetune.local.machine import check_machine
from finetune.local.mounts import parse_mounts
from finetune.local.runner import Runner, adopt, read_system_message
from finetune.local.store import Store
from finetune.manifests import check_object, find_job, read_manifests

FAILED, INVALID, WAITING, INTERRUPTED = 1, 2, 3, 130
"""Exit codes: the job failed; the input is wrong; the job waits for its user; Ctrl-C."""
Mounts = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=DIRECTORY for a claim or a ConfigMap that the manifest names. The keys of a ConfigMap are otherwise"
        " files beside the manifest."
    ),
]
Directory = Annotated[Path, typer.Option(help="Where results, checkpoints and logs are kept.")]
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Fine-tunes language models.")


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: messages quote what others wrote."""
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)


@app.callback()
def _callback() -> None:
    """Fine-tune language models with the manifests of finetune-operator."""


@app.command()
def run(
    manifest: Annotated[Path, typer.Argument(help="File with the FineTuneJob, and the ModelServer that it names.")],
    mount: Mounts = None,
    directory: Directory = Path(".finetune"),
    ask_: Annotated[
        list[str] | None, typer.Option("--ask", help="A question to base and tuned model, before the chat.")
    ] = None,
    *,
    approve: Annotated[bool, typer.Option(help="Approve the cost, as spec.approved does.")] = False,
) -> None:
    """Train, evaluate and serve a FineTuneJob on this machine, with the programs of the images.

    Running it again after an interruption continues from the last checkpoint.
    """
    console = open_console()
    documents = read_manifests(manifest)
    job = find_job(manifest, documents)
    check_machine(FineTuneJobSpec.model_validate(job["spec"]))
    root = directory.resolve()
    approved = {"approved": True} if approve else {}
    adopt(Store(root), documents, job | {"spec": job["spec"] | approved})
    runner, result = _run_job(console, root, manifest, mount, job["metadata"]["name"])
    try:
        raise typer.Exit(_finish(console, runner, result, ask_ or []))
    finally:
        runner.stop()


@app.command()
def validate(
    manifest: Annotated[Path, typer.Argument(help="File with the FineTuneJob.")],
    mount: Mounts = None,
    directory: Directory = Path(".finetune"),
) -> None:
    """Check the data of a FineTuneJob and estimate its training, without training it."""
    console = open_console()
    documents = read_manifests(manifest)
    job = find_job(manifest, documents)
    spec = job["spec"]
    root = directory.resolve() / "validate"
    # A training that nobody approves does not begin.
    unapproved = {"budget": spec.get("budget", {}) | {"approval": "Manual"}, "approved": False}
    adopt(Store(root), documents, job | {"spec": spec | unapproved})
    _, result = _run_job(console, root, manifest, mount, job["metadata"]["name"])
    status = result.status
    if status.dataset is None or status.estimate is None:
        _, message = _find_problem(result) or (FAILED, f"{result.name} was not checked")
        console.print(message, style="red")
        raise typer.Exit(FAILED)
    on_gpu = bool(result.spec and result.spec.compute.resources.gpus)
    console.print(format_dataset(status.dataset))
    console.print(f"training: {describe_estimate(status.estimate, on_gpu=on_gpu)}")
    report = JobDirectory.of(job_file(result), root).report("prepare")
    console.print(f"the rows of the warnings, and more: {relpath(report)}")


@app.command()
def init(
    data: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="File with examples: JSONL, JSON, CSV, TSV or Parquet.")
    ],
    model: Annotated[
        str, typer.Option(prompt="Base model", help="hf://org/name, pvc://claim/path or s3://bucket/key.")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the tuned model. Default: that of the file.")] = None,
    gpus: Annotated[int, typer.Option(min=0, max=16, help="GPUs of the training and of the server; 0: CPUs.")] = 0,
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("job.yaml"),
) -> None:
    """Look at a file with data, and write a manifest for it."""
    if output.exists():
        raise CommandError(f"{output} exists: remove it, or name another file with --output")
    inspected, name = inspect_data(data), name or choose_name(data)
    manifests = build_manifests(inspected, name, model, gpus)
    for manifest in manifests:
        check_object(output, manifest)
    output.write_text(format_manifests(manifests, inspected, name, output))
    typer.echo(f"{output}: {inspected.format} data for method.{inspected.method}; its first lines say how to continue")


def _run_job(
    console: Console, root: Path, manifest: Path, mounts: list[str] | None, name: str
) -> tuple[Runner, JobView]:
    """Run a job of the store until it is Ready or needs its user; its server still runs then."""
    with RunDisplay(console) as display:
        runner = Runner(root, manifest.resolve(), parse_mounts(mounts or ()), display)
        try:
            return runner, runner.run(name)
        except BaseException:
            console.print("stopping; run the same command again to continue")
            runner.stop()
            raise


def _finish(console: Console, runner: Runner, job: JobView, questions: list[str]) -> int:
    """Show the outcome of a run, let the user talk to the model, and return the exit code."""
    status = job.status
    if status.evaluation:
        console.print(format_evaluation(status.evaluation))
        for gate in status.evaluation.gates:
            console.print(f"gate: {gate.message}")
    problem = _find_problem(job)
    if problem:
        code, message = problem
        console.print(message, style="red")
        for process in runner.processes.values():
            console.print(f"its log: {relpath(process.log)}")
        return code
    if status.artifact:
        console.print(f"artifact: {relpath(path_of(status.artifact.uri, runner.root))}")
    if runner.server and status.serving:
        url = f"http://127.0.0.1:{runner.server.port}/v1"
        _talk(console, url, status.serving.model_name, read_system_message(runner.root, job), questions)
    return 0


def _talk(console: Console, url: str, model: str, system: str, questions: list[str]) -> None:
    """Put questions to the base and the tuned model, then let the user chat with the tuned one."""
    console.print(f"{model} answers at {url}")
    if system:
        console.print(f"system message, as in the held-out data: {system}")
    with OpenAI(base_url=url, api_key="none") as client:
        for question in questions:
            console.print(f"\n{question}", style="bold")
            for name in (BASE_NAME, model):
                answer = ask(client, name, question, system)
                console.print(f"{name:20} {answer}")
        if sys.stdin.isatty():
            chat(client, model, system, console)


def _find_problem(job: JobView) -> tuple[int, str] | None:
    """Return the exit code and the message for a job that is not Ready."""
    conditions = {condition.type: condition for condition in job.status.conditions}
    failed, approved = conditions.get(ConditionType.FAILED), conditions.get(ConditionType.APPROVED)
    if failed and failed.status == "True":
        return FAILED, f"{job.name} failed: {failed.reason}: {failed.message}"
    if approved and approved.status == "False":
        estimate, _, _ = approved.message.partition("; approve it with: ")
        return WAITING, f"{job.name} waits for its approval: {estimate}; run it with --approve"
    ready = conditions.get(ConditionType.READY)
    if ready and ready.status != "True":
        return WAITING, f"{job.name} waits: {ready.reason}: {ready.message}"
    return None


def main() -> None:
    """Run a command, and end the process with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Shells start programs in the background with SIGINT ignored. In both cases the processes of a run must end.
        signal.signal(number, signal.default_int_handler)
    try:
        app()
    except CommandError as error:
        open_console(stderr=True).print(error, style="red")
        sys.exit(INVALID)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
