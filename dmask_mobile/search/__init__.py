"""The search: gates trained under a budget, and the child derived from them."""
