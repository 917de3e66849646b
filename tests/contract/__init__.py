"""One suite for every engine: the fake, the embedded one, and any real ComfyUI that COMFYUI_URL names."""
