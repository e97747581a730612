"""Models, or settings of one, on the same items: their runs, what tells them apart, and a page of it."""
