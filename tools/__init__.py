"""What writes files of this repository from its code."""
