"""Stage 3: generate (`sampling`), score, cache (`data`), align (trainer, `objectives`, `training`), again (`iterate`)."""
