"""The trainer image: prepares the data of a FineTuneJob, trains, and exports the result."""
