"""Metrics over all examples: known values."""

import math
from typing import Any

import numpy as np
import pytest
from finetune_serving.evaluation.answer_scores import bleu_statistics
from finetune_serving.evaluation.comparison import compare
from finetune_serving.evaluation.estimators import Sample, build_estimator
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu

PAIRS = [("the cat sat on the mat", "the cat sat on a mat"), ("hello", "hello there"), ("a b c d e", "a b c d e")]


def compute_metric(metric: Any, samples: list[Sample]) -> float:
    return float(build_estimator(metric, metric, samples)(np.ones((1, len(samples))))[0])


def test_perplexity_is_weighted_by_tokens() -> None:
    assert compute_metric("Perplexity", [Sample(10.0, 10), Sample(90.0, 30)]) == pytest.approx(np.exp(100 / 40))


def test_bleu_equals_sacrebleu_over_the_corpus() -> None:
    samples = [Sample(answer=answer, bleu=bleu_statistics(answer, reference)) for answer, reference in PAIRS]
    expected = corpus_bleu([answer for answer, _ in PAIRS], [[reference for _, reference in PAIRS]]).score / 100
    assert compute_metric("Bleu", samples) == pytest.approx(expected)
    assert compute_metric("Bleu", samples[2:]) == pytest.approx(1)


def test_classification_f1_is_the_mean_over_the_references_labels() -> None:
    answers = ["yes", "yes", "no", "perhaps"]
    references = ["yes", "no", "no", "no"]
    samples = [Sample(labels=pair) for pair in zip(answers, references, strict=True)]
    # yes: 2·1 / (2 + 1); no: 2·1 / (1 + 3); perhaps is not a label of the references
    assert compute_metric("ClassificationF1", samples) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_labeled_completions_are_ranked_and_ties_count_half() -> None:
    samples = [Sample(labeled_logprob=pair) for pair in ((True, -1.0), (True, -2.0), (False, -2.0), (False, -3.0))]
    assert compute_metric("PreferenceAccuracy", samples) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=12))
def test_the_ranking_compares_all_pairs(completions: list[tuple[bool, int]]) -> None:
    good, bad = ([float(logprob) for is_good, logprob in completions if is_good is label] for label in (True, False))
    samples = [Sample(labeled_logprob=(is_good, float(logprob))) for is_good, logprob in completions]
    accuracy = compute_metric("PreferenceAccuracy", samples)
    if not good or not bad:
        assert math.isnan(accuracy)
    else:
        pairs = [(better > worse) + (better == worse) / 2 for better in good for worse in bad]
        assert accuracy == pytest.approx(sum(pairs) / len(pairs))


def test_scores_count_only_the_examples_that_have_them() -> None:
    samples = [Sample(scores={"ToolCallValid": 1.0}), Sample(), Sample(scores={"ToolCallValid": 0.0})]
    assert compute_metric("ToolCallValid", samples) == 0.5
    assert compare([("ToolCallValid", None)], [Sample()] * 3, [Sample()] * 3) == []
