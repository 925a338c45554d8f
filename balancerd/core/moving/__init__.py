"""How a VM can be moved, along which path, and what that costs."""
