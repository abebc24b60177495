"""The commands of ``wgpeer``, one file for each thing that they are about."""
