"""From a trained child to phone formats, and the verification of what came out."""
