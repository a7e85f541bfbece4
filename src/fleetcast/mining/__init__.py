"""What a fleet's data says: telemetry in, findings out."""
