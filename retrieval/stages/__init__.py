"""The stages that come with OpenPeek, one file each."""
