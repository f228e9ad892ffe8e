"""The trainer image: checks and splits the data of a FineTuneJob, and trains it."""
