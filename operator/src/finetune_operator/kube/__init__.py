"""The Kubernetes API: client, kinds, the work queue and leader election. Knows nothing of FineTuneJobs."""
