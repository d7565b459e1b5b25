"""Run the chunks of a batch with an executor: in processes that are started anew, on this machine or on others."""
