"""How well a model shows concepts and follows prompts."""
