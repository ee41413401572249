"""Input signals u(t) from samples: what lies between the samples, and how a solve reads it."""
