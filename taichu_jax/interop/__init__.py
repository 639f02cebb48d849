"""Weights to and from the folders of the Hugging Face hub (config.json and safetensors)."""
