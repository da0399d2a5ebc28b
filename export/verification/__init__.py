"""Whether an exported file is what was predicted."""
