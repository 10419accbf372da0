"""Tables, files and images of any kind as rows, with what belongs beside them."""
