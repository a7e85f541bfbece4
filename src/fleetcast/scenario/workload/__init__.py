"""What must be done: models, requests and the serving workload."""
