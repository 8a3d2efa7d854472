"""What objectives are made of: the step and its settings, weights of rows, groups, pairs and references."""
