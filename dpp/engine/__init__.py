"""Files through the stages: threads, queues, child processes."""
