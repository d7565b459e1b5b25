"""Read and check the list of files of a batch."""
