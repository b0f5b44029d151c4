"""The sections of a record's HTML page: each module has the content of one or two, of which a template makes HTML."""
