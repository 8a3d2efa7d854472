"""What every push goes by: whose repository, which files, from a trainer too."""
