"""Files as such: what they hold as a hash, and where a command may write them."""
