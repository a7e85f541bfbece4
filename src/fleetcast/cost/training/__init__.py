"""What one iteration of training takes, in time and memory: maths on columns of plans, a scalar being a column of one."""
