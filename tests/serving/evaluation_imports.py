"""The packages of an evaluation, which `forked.py` imports once for all runs; sets vLLM's environment variables."""

from finetune_serving.vllm_config import set_environment

set_environment(gpu=False)

import finetune_serving.evaluation.stage  # noqa: E402
import transformers.models.llama  # noqa: E402
import vllm.entrypoints.llm  # noqa: E402
import vllm.model_executor.models.llama  # noqa: E402
import vllm.v1.engine.core  # noqa: E402
import vllm.v1.engine.llm_engine  # noqa: E402
import vllm.v1.worker.cpu_worker  # noqa: E402

__all__ = ["finetune_serving", "transformers", "vllm"]
