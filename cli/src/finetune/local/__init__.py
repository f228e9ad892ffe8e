"""Runs a FineTuneJob on this machine: the operator's decisions, with processes in the place of pods."""
