"""How good a model is: metrics, ensembles, predictions, comparisons."""
