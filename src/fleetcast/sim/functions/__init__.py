"""Functions on a logical clock: pods that start cold, run, idle warm and end."""
