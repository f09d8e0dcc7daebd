"""What an agent CLI is: manifests as data, read into `RuntimeSpec` values."""
