"""What kinds of scenario there are: a file here is one kind of workload with its plan, and the reading of both."""
