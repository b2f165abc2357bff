"""The demo: four organizations decide together over real clinical data. `scripts/demo --help`"""
