"""The open backend for AI: publish a program, any machine runs it and is paid, anyone calls it."""
