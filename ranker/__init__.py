"""The ranking model, its training and its evaluation."""
