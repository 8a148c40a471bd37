"""Where documents come from: folders, files of records, catalogues, the objects of other libraries."""
