"""What a stage needs and costs before it is paid for: the project's own code, run on tensors that hold nothing."""
