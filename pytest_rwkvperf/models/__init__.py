"""Models to measure: public shapes with synthetic weights, files in three formats, and the cache between them.

`resolve.resolve` turns what the user wrote into a `files.Model`; `resolve.file_for` gives the file a backend reads.
"""
