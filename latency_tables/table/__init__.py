"""Tables: what was measured, as rows and summaries, and how tables are written, compared and imported."""
