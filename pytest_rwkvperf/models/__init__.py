"""Models to measure: public shapes with synthetic weights, files in three formats, and the cache of derived files.

`model_store.ModelStore` turns a model reference into a `model.Model`, and gives the file of it that a backend reads.
"""
