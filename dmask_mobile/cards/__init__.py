"""Accuracies of a trained run class by class, pictures of them, and the model card."""
