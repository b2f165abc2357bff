"""The demo: four organizations decide together over real clinical data, as `scripts/demo --help` says."""
