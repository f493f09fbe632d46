"""The picture world of the miniature: what there is, how it is drawn, how it is put in words."""
