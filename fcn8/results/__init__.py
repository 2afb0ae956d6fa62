"""What comes out: probabilities, overlays, scores, the exported model, the page of a run."""
