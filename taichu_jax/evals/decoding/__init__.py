"""From a recogniser's scores to text: one way of searching, or one language model, a file."""
