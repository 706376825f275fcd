"""Workflows with other packs' guidance nodes, made into workflows with ours. Standard library only, without ComfyUI.

table.json: old node -> ours, input by input. nodes.json: what our nodes take, written by `python dev.py lab schema`.
"""
