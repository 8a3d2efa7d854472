"""What the trainer is made of: draws, policies, precision, logged sums, the guard, and what is saved."""
