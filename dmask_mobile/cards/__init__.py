"""The accuracy of each class of a trained run, pictures of it, and the model card."""
