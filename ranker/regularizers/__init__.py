"""Further terms of the loss that read embeddings, one regulariser per file."""
