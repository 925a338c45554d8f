"""The pure core: values in, values out. No clock, file, socket, log, thread or randomness."""
