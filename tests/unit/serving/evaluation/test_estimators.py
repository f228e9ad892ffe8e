"""Metrics of many examples: known values."""

import math
from typing import Any

import numpy as np
import pytest
from finetune_serving.evaluation.comparison import compare
from finetune_serving.evaluation.estimators import Sample, build_estimator
from finetune_serving.evaluation.scores import bleu_statistics
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu

PAIRS = [("the cat sat on the mat", "the cat sat on a mat"), ("hello", "hello there"), ("a b c d e", "a b c d e")]


def value(metric: Any, samples: list[Sample]) -> float:
    return float(build_estimator(metric, metric, samples)(np.ones((1, len(samples))))[0])


def test_perplexity_is_weighted_by_tokens() -> None:
    assert value("Perplexity", [Sample(10.0, 10), Sample(90.0, 30)]) == pytest.approx(np.exp(100 / 40))


def test_bleu_is_that_of_sacrebleu_over_the_corpus() -> None:
    samples = [Sample(answer=given, bleu=bleu_statistics(given, wanted)) for given, wanted in PAIRS]
    wanted = corpus_bleu([given for given, _ in PAIRS], [[wanted for _, wanted in PAIRS]]).score / 100
    assert value("Bleu", samples) == pytest.approx(wanted)
    assert value("Bleu", samples[2:]) == pytest.approx(1)


def test_classification_f1_is_the_mean_over_the_references_labels() -> None:
    given = ["yes", "yes", "no", "perhaps"]
    wanted = ["yes", "no", "no", "no"]
    samples = [Sample(labels=pair) for pair in zip(given, wanted, strict=True)]
    # yes: 2·1 / (2 + 1); no: 2·1 / (1 + 3); perhaps is no label of the references
    assert value("ClassificationF1", samples) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_judged_completions_are_ranked_and_ties_count_half() -> None:
    samples = [Sample(judged=one) for one in ((True, -1.0), (True, -2.0), (False, -2.0), (False, -3.0))]
    assert value("PreferenceAccuracy", samples) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=2, max_size=12))
def test_the_ranking_is_that_of_all_pairs(judged: list[tuple[bool, int]]) -> None:
    good, bad = ([float(one) for is_good, one in judged if is_good is wanted] for wanted in (True, False))
    found = value("PreferenceAccuracy", [Sample(judged=(is_good, float(one))) for is_good, one in judged])
    if not good or not bad:
        assert math.isnan(found)
    else:
        pairs = [(one > other) + (one == other) / 2 for one in good for other in bad]
        assert found == pytest.approx(sum(pairs) / len(pairs))


def test_scores_count_only_the_examples_that_have_them() -> None:
    samples = [Sample(scores={"ToolCallValid": 1.0}), Sample(), Sample(scores={"ToolCallValid": 0.0})]
    assert value("ToolCallValid", samples) == 0.5
    assert compare([("ToolCallValid", None)], [Sample()] * 3, [Sample()] * 3) == []
