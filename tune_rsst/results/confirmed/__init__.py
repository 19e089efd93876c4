"""What repeating trials with fresh seeds tells: which configuration is best, and how sure that is."""
