"""The operator: watches FineTuneJobs and ModelServers, plans what should exist, applies it."""
