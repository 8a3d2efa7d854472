"""`evaluate.load` module of Bradley-Terry strengths."""
