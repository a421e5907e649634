"""A protocol, a run, a report: the same measurement for every tokenizer and for what people would use instead."""
