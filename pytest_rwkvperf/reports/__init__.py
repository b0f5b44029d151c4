"""Reports made from a measurement record, one module per format group; `formats` lists them."""
