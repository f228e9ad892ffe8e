"""The scores at the end of a model card."""

from finetune_pod.model_card import with_scores
from finetune_trainer.export.model_card import build_card
from unit.model_cards import STATISTICS, SUMMARY, job, trained


def test_later_scores_take_the_place_of_earlier_ones() -> None:
    open_card = build_card(job(), trained(), STATISTICS)
    assert "have not been compared yet" in open_card
    once = with_scores(open_card, SUMMARY)
    assert "have not been compared yet" not in once
    assert with_scores(once, SUMMARY) == once
