"""Decisions about one FineTuneJob: its desired children and its next status. No I/O."""
