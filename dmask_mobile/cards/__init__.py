"""What a trained run says of itself: accuracies class by class, pictures of them, and the model card."""
