"""Doubles of what stands on the other side of the converter: a scripted ComfyUI, and a relay in front of any engine."""
