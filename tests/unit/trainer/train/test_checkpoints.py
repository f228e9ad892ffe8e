"""Which checkpoint to go on from."""

from pathlib import Path

from finetune_trainer.train.checkpoints import is_whole, mark_whole, newest_whole


def test_only_a_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_text("w" * step)
    assert newest_whole(tmp_path) is None
    for step in (5, 10):
        mark_whole(tmp_path / f"checkpoint-{step}")
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_text("cut")
    assert not is_whole(tmp_path / "checkpoint-10")
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-5"
