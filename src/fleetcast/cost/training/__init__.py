"""What one iteration of training takes, in time and memory, on columns of plans: a scalar is a column of one."""
