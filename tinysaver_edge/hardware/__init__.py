"""What a device is: probe, profiles, doctor."""
