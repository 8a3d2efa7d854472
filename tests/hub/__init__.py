"""A small Hugging Face Hub on the loopback interface, for tests that use the real clients. See README.md here."""
