"""A critic or judge behind HTTP: `lift-trl serve`, and what a training tool needs to ask it."""
