"""Training: recipes, optimisers, and the loop on Lightning's Trainer. Depends on no detector and no engine."""
