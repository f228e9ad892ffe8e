"""The API of finetune-operator: FineTuneJob, ModelServer, and the contract between its programs."""
