"""``python -m cns_lightning.miniature`` trains the miniature base model and its judge."""

from cns_lightning.miniature.training.recipe import main

if __name__ == "__main__":
    main()
