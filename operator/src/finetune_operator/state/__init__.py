"""Raw Kubernetes objects as typed values: FineTuneJobs, ModelServers, child Jobs, pods and conditions. No I/O."""
