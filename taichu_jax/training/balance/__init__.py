"""How the losses of several objectives become one update: one method, one file."""
