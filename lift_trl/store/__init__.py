"""What every stage needs to read and write artefacts: manifests, sharding, video files, rated rows."""
