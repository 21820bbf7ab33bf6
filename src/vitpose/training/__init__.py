"""Training: recipes, optimiser, and the loop on Lightning's Trainer. Knows no detector and no engine."""
