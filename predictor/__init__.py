"""From numbers to scores: heads, ensemble, calibration, checkpoints, training and the command line."""
