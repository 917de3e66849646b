"""Everything that knows ComfyUI: its wire format, its HTTP routes, its websocket, its process."""
