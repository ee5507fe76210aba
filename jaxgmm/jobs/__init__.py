"""A table fitted in parts: what is asked for, how one part is read and fitted, and the engines that do all parts."""
