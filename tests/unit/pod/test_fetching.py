"""Downloads: what their log says, and what is tried again."""

import logging

import pytest
from finetune_api.conditions import Reason
from finetune_pod import fetching
from finetune_pod.fetching import DownloadProgress, FetchError, describe_progress, retry_transient


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (1_500_000, 6_000_000, 3, "1.5 MB of 6.0 MB (25 %), 500.0 kB/s"),
        (999, None, 1, "999 B, 999 B/s"),
        (2_000_000_000_000, 2_000_000_000_000, 1000, "2.0 TB of 2.0 TB (100 %), 2.0 GB/s"),
    ],
)
def test_progress_is_written_as_people_read_it(done: int, total: int | None, seconds: float, text: str) -> None:
    assert describe_progress(done, total, seconds) == text


def test_a_long_download_says_every_few_seconds_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    progress = DownloadProgress("s3://bucket/file", 1000, lambda: now)
    for _ in range(10):
        now += 1
        progress.add(100)
    assert caplog.messages == [
        "s3://bucket/file: 500 B of 1.0 kB (50 %), 100 B/s",
        "s3://bucket/file: 1.0 kB of 1.0 kB (100 %), 100 B/s",
    ]


@pytest.mark.parametrize(
    ("reason", "calls"),
    [
        (Reason.SOURCE_UNREACHABLE, 6),
        (Reason.RATE_LIMITED, 6),
        (Reason.ACCESS_DENIED, 1),
        (Reason.TERMS_NOT_ACCEPTED, 1),
        (Reason.INVALID_SPEC, 1),
        (None, 1),
    ],
)
def test_only_transient_failures_are_retried(
    reason: Reason | None, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FIRST_WAIT", 0.0)
    called = []

    def fail() -> None:
        called.append(1)
        raise FetchError(reason, "no")

    with pytest.raises(FetchError):
        retry_transient()(fail)
    assert len(called) == calls
