"""ComfyUI nodes for wanimate: this folder goes into ComfyUI's `custom_nodes`."""

from .nodes import WanimateAnimate, WanimateLoadGuides, WanimateReplace

NODE_CLASS_MAPPINGS = {node.__name__: node for node in (WanimateAnimate, WanimateReplace, WanimateLoadGuides)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "WanimateAnimate": "Wanimate Animate",
    "WanimateReplace": "Wanimate Replace",
    "WanimateLoadGuides": "Wanimate Load Guides",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
