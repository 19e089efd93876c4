"""A folder of images, one subfolder per class: which files it holds, what is in them, and how they become pixels."""
