"""Which way to a model: measure the task and the source, expect scores and costs, verify."""
