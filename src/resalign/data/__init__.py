"""Image sets with captions and prompt lists, read from folders in the field's conventions."""
