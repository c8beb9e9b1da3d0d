"""One module for each sort of program: each looks at a folder's files and says how it would be run, or nothing."""
