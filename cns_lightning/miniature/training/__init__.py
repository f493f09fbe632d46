"""How the miniature is made from nothing: pools of pictures, stages, the loop that they share."""
