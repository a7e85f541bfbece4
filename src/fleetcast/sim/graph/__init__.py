"""The world of task graphs on a logical clock: it plays any order policy and says when what happened."""
