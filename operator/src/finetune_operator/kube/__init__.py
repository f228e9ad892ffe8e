"""The Kubernetes API: client, kinds, work queue and leader election. Has no knowledge of FineTuneJobs."""
