"""The audit: every claim of the demo, computed from what a kept demo left behind, as `scripts/demo-audit --help` says.

It asks no node and believes no word of the demo. A record counts where its signature verifies under the roots.
"""
