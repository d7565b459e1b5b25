"""Reading and checking the list of files of a batch."""
