"""Self-supervised learning of text, speech and vision as small losses inside one jitted step."""
