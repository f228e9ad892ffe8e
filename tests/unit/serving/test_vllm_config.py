"""The ranks that vLLM knows."""

from finetune_serving.vllm_config import allowed_rank


def test_ranks_are_rounded_up_to_what_vllm_allows() -> None:
    assert [allowed_rank(rank) for rank in (1, 8, 9, 64, 300)] == [8, 8, 16, 64, 320]
