"""Before the bill: what a sweep will do, whether it can run here, and what it will cost."""
