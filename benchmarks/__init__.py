"""Speed, measured beside other libraries: binaries, none of which is a test."""
