"""The API of finetune-operator: FineTuneJob and ModelServer, and the files that its programs exchange."""
