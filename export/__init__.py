"""From a trained child to phone formats, and the verification of the exported models."""
