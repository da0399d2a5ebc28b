"""Tables: measurements as rows and summaries; writing, comparing and importing tables."""
