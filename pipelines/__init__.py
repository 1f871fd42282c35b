"""What writes stores: images, annotators, shards, runs."""
