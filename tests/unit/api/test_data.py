"""Which method learns from which format, and the sources of the training data."""

from typing import get_args

from finetune_api.data import SFT_FORMATS, Dataset, Format, accepted_formats


def test_every_format_is_learnt_from_by_a_method() -> None:
    formats = {name: accepted_formats(name) for name in ("sft", "dpo", "kto", "orpo", "grpo", "reward")}
    assert {name for accepted in formats.values() for name in accepted} == set(get_args(Format))
    assert formats["sft"] == SFT_FORMATS
    assert formats["dpo"] == formats["orpo"] == formats["reward"]


def test_a_single_source_is_a_mix_of_one() -> None:
    dataset = Dataset.model_validate({"train": {"uri": "pvc://data/a", "columns": {"prompt": "q"}}})
    ((field, source),) = dataset.sources.items()
    assert (field, source.uri, source.columns, source.weight) == ("dataset.train", "pvc://data/a", {"prompt": "q"}, 1)


def test_a_mix_has_its_sources_in_order() -> None:
    dataset = Dataset.model_validate({"mix": [{"uri": "pvc://data/a"}, {"uri": "pvc://data/a", "weight": 0.2}]})
    assert {field: source.weight for field, source in dataset.sources.items()} == {
        "dataset.mix[0]": 1,
        "dataset.mix[1]": 0.2,
    }
