"""The outcomes of a run, summarized, drawn and exported."""
