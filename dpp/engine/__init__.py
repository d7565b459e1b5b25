"""Run files through the stages, with threads, queues and child processes."""
