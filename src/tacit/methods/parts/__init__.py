"""What methods of several families use."""
