"""Our estimators beside those of other libraries, on tables that packages or the data root hold."""
