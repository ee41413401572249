"""The solver alone: tableaus, steps, step sizes, dense output, events; nothing of gradients."""
