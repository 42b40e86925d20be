"""What takes a finished result out of the house for good: one folder that holds all it was made of, told and checked."""
