"""Neural clamping: one input perturbation and one temperature for a frozen network."""
