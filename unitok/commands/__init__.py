"""What stands behind `unitok COMMAND`: each command is a function whose signature is its command line."""
