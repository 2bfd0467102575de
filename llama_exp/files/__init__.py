"""The only place that touches the disk in earnest: whole files or none, locks, digests, strict JSON, no secrets."""
