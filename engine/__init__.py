"""A ComfyUI-protocol engine on torch and diffusers.

Protocol half: wire, graph, plan, prompts, cache (pure), executor, server, sockets, files and the nodes. Diffusion half:
device, models, sampling and what they stand on. They meet in `engine.__main__` only.
"""
