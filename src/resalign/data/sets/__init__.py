"""Prepared image sets, one file each: the file's name is the set's, ``INPUTS`` the settings that name assets."""
