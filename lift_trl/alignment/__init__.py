"""Stage 3: generate (`sampling`), score, cache (`data`), align (the trainer, `objectives`, `training`), again (`iterate`)."""
