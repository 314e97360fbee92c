"""headstart gives a language model's soft prompts a head start."""
