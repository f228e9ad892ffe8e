"""Complete and incomplete checkpoints."""

from pathlib import Path

from finetune_trainer.train.checkpoints import find_newest_complete, is_complete, mark_complete


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_text("w" * step)
    assert find_newest_complete(tmp_path) is None
    for step in (5, 10):
        mark_complete(tmp_path / f"checkpoint-{step}")
    assert find_newest_complete(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_text("cut")
    assert not is_complete(tmp_path / "checkpoint-10")
    assert find_newest_complete(tmp_path) == tmp_path / "checkpoint-5"
