"""Models to measure: public shapes with synthetic weights, files in three formats, and the cache between them.

`model_store.resolve` turns a model reference into a `Model`; `model_store.file_for` gives the file a backend reads.
"""
